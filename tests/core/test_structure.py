"""The house: which folder may know which, and that a rival system is named in its own files only."""

import ast
import re
from pathlib import Path

from helpers import ROOT

PACKAGE = ROOT / "lns_sim"
# What belongs to a system that LNS-Madam is compared with, and the one place that lists them by name.
RIVALS = {
    "quantizers/fp4.py",
    "quantizers/fp8.py",
    "quantizers/integer.py",
    "quantizers/luq.py",
    "quantizers/shiftquant.py",
    "optim/bit_centered.py",
    "optim/halp.py",
    "optim/madam.py",
    "nn/l1norm.py",
    "systems.py",
    "quantizers/__init__.py",
}
PAPERS = PACKAGE / "studies/papers"  # repeats what their papers show
NAMES = re.compile(r"\b(luq|halp|sawb|shiftquant|svrg)\b", re.IGNORECASE)


def room(path: Path) -> str:
    """The folder of a file within the package, or the module itself where it stands at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it: deferred and for typing, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lns_sim":
            inner = node.module.split(".")[1:]
            found |= {inner[0]} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("lns_sim.")}
            assert not any(name.name == "lns_sim" for name in node.names), f"{path} imports the whole package"
    return found


def edges() -> dict[str, set[str]]:
    """Of rooms; lns_sim/__init__.py, which only gathers, is none."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE or path.stem != "__init__":
            graph.setdefault(room(path), set()).update(imports(path) - {room(path)})
    return graph


def test_no_cycle_of_imports_between_folders():
    graph, done, under_way = edges(), set(), []

    def visit(name):
        assert name not in under_way, " -> ".join([*under_way[under_way.index(name) :], name])
        if name in done or name not in graph:
            return
        under_way.append(name)
        for other in sorted(graph[name]):
            visit(other)
        done.add(under_way.pop())

    for name in graph:
        visit(name)
    assert {"quantizers", "recipes", "ops", "nn", "optim", "watching", "studies", "cli"} <= done


def test_a_rival_is_named_in_its_own_files():
    for path in PACKAGE.rglob("*.py"):
        if str(path.relative_to(PACKAGE)) not in RIVALS and path.parent != PAPERS:
            named = NAMES.findall(path.read_text())
            assert not named, f"{path} names {named}"
