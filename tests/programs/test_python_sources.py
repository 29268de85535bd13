"""The corpus of Python sources, with the licenses that its packages tell."""

from benchmarks import python_sources


def test_sources_are_collected_with_their_licenses(monkeypatch, tmp_path):
    library, folder = tmp_path / "library", tmp_path / "corpus"
    (library / "site-packages/other").mkdir(parents=True)
    (library / "a.py").write_text("a = 1\n")
    (library / "again.py").write_text("a = 1\n")
    (library / "empty.py").write_text("\n")
    (library / "latin.py").write_bytes(b"# \xe9\n")
    (library / "large.py").write_text("x = 1\n" * 100_000)
    (library / "site-packages/other/b.py").write_text("b = 2\n")
    monkeypatch.setattr(python_sources.sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    (name, license, files, size), ours = (
        python_sources.collect(folder, ["pytest"])[0],
        python_sources.package("pytest"),
    )
    assert name.startswith("python 3.") and (license, files, size) == ("PSF-2.0", 1, 6)
    assert [p.name for p in (folder / "python").rglob("*.py")] == ["a.py"]
    table = (folder / "SOURCES.md").read_text()
    assert "| pytest " in table and "| MIT |" in table and all(p.endswith(".py") for p in ours)
