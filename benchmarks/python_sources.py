"""Collects Python sources into a folder, for ``lns-sim train --data text:FOLDER``: the standard library of the running
interpreter and the packages that are named, as they are installed.

    python -m benchmarks.python_sources FOLDER torch numpy scipy

FOLDER gets the sources, each distribution's below its own name, and SOURCES.md: what each gave, and under which license
by its own metadata. Of equal files one is kept; what is no UTF-8, or larger than half a megabyte (tables, mostly), is
left out.
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.studies.training.text import is_own, is_utf8

LARGEST = 500_000  # bytes
# The standard library's own license, which no metadata tell.
PYTHON_LICENSE = "PSF-2.0"


def license_of(name: str) -> str:
    """What a distribution's metadata call its license: an expression, else a classifier, else a line."""
    metadata = distribution(name).metadata
    kinds = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    line = (metadata.get("License") or "").splitlines()[:1]
    return metadata.get("License-Expression") or ", ".join(kinds) or "".join(line) or "not told"


def standard_library() -> dict[str, Path]:
    """Sources by their path below the library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {path.relative_to(root): path for path in root.rglob("*.py")}
    return {str(name): path for name, path in found.items() if is_own(name)}


def package(name: str) -> dict[str, Path]:
    """Sources of an installed distribution.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    return {
        str(f): Path(f.locate()) for f in distribution(name).files or () if f.suffix == ".py" and ".." not in f.parts
    }


def collect(folder: Path, packages: Iterable[str]) -> list[tuple[str, str, int, int]]:
    """Copies the sources; returns name, license, files and bytes of each distribution."""
    seen: set[bytes] = set()
    table = []
    python = f"python {platform.python_version()}"
    origins = [(python, PYTHON_LICENSE, standard_library())]
    origins += [(f"{name} {distribution(name).version}", license_of(name), package(name)) for name in packages]
    for name, license, sources in origins:
        kept = 0, 0
        for path, source in sorted(sources.items()):
            if not source.is_file():  # told by the metadata, but not installed
                continue
            text = source.read_bytes()
            digest = hashlib.sha256(text).digest()
            if not text.strip() or len(text) > LARGEST or digest in seen or not is_utf8(text):
                continue
            seen.add(digest)
            target = folder / name.partition(" ")[0] / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
            kept = kept[0] + 1, kept[1] + len(text)
        table.append((name, license, *kept))
    rows = [f"| {name} | {license} | {files:,} | {size:,} |" for name, license, files, size in table]
    (folder / "SOURCES.md").write_text("\n".join(["| of | license | files | bytes |", "|---|---|---|---|", *rows, ""]))
    return table


def main(
    folder: Annotated[Path, typer.Argument(help="where to, new or empty")],
    packages: Annotated[list[str] | None, typer.Argument(help="installed distributions")] = None,
) -> None:
    """Collect Python sources for a language model."""
    if folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    table = collect(folder, packages or [])
    print((folder / "SOURCES.md").read_text())
    print(f"{sum(row[2] for row in table):,} files, {sum(row[3] for row in table):,} bytes")


if __name__ == "__main__":
    typer.run(main)
