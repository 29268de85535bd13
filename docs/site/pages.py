"""Pages of the site that are no Markdown file of docs: the README and others, guides, commands and the API."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import typer
from typer.cli import get_docs_for_click

from lns_sim.command.app import app

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# What a page of the reference holds: title, and modules whose public names it shows, each name where it comes first.
REFERENCE = {
    "lns_sim": ("lns_sim", ["lns_sim"]),
    "nn": ("Models", ["lns_sim.nn"]),
    "recipes": ("Recipes", ["lns_sim.recipes"]),
    "quantizers": ("Quantizers", ["lns_sim.quantizers"]),
    "optim": ("Optimizers", ["lns_sim.optim"]),
    "training": ("Training", ["lns_sim.studies.training", "lns_sim.studies.training.data"]),
    "studies": ("Studies", ["lns_sim.studies.compare", "lns_sim.studies.contest", "lns_sim.studies.sweep.study"]),
    "energy": ("Energy and cycles", ["lns_sim.studies.energy"]),
    "watching": ("Watching", ["lns_sim.watching.counting", "lns_sim.watching.summary", "lns_sim.watching.nonfinite"]),
    "golden": ("Golden vectors", ["lns_sim.golden"]),
    "weights": ("Weight files", ["lns_sim.weights"]),
    "distributed": ("Several processes", ["lns_sim.distributed"]),
    "registry": ("Registry", ["lns_sim.registry"]),
    "reference": (
        "The arithmetic in plain Python",
        ["lns_sim.reference", "lns_sim.reference_blocks", "lns_sim.reference_log"],
    ),
}


def public(module: ModuleType) -> list[str]:
    """What a module offers and is no module: ``__all__``, or what it defines."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    names = [name for name in getattr(module, "__all__", own) if not name.startswith("_")]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def reference() -> dict[str, str]:
    """The API: a directive for each public name, which mkdocstrings makes its docstring of."""
    pages, seen = {}, set()
    for page, (title, modules) in REFERENCE.items():
        text = f"# {title}\n"
        for module in map(importlib.import_module, modules):
            text += f"\n{inspect.getdoc(module)}\n"
            for name in public(module):
                value = getattr(module, name)
                if id(value) not in seen:
                    seen.add(id(value))
                    # Where it is defined: what a package gathers may have the name of the module that it is from.
                    home = getattr(value, "__module__", None) if callable(value) else None
                    text += f"\n::: {home or module.__name__}.{name}\n"
                    text += f"    options: {{heading: {module.__name__}.{name}}}\n"
        pages[f"reference/{page}.md"] = text
    return pages


def guide(script: str) -> str:
    """A guide's words as text and its code as code: what stands between blank lines and begins with # is text."""
    _, words, code = script.split('"""', 2)
    title, _, rest = words.partition("\n\n")
    rest = re.sub(r"(?<=Run it: )[^(\n]+[^( \n]", r"`\g<0>`", rest.strip())
    text = f"# {title.partition(':')[0].rstrip('.')}\n\n{title}\n\n{rest}\n"
    for part in re.split(r"\n\n(?=#)", code):
        lines = part.strip().splitlines()
        said = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
        words = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:said])
        text += "\n" + re.sub(r"^(\d+)\. ", r"**\1.** ", words) + "\n"
        if code := "\n".join(lines[said:]).strip():
            text += f"\n```python\n{code}\n```\n"
    return text


def guides() -> dict[str, str]:
    """Every guide, and a page that lists them."""
    found = {f"guides/{path.stem}.md": guide(path.read_text()) for path in sorted((ROOT / "docs/guides").glob("*.py"))}
    index = "# Guides\n\nScripts of `docs/guides`, to read here and to run; the tests run them all.\n\n"
    for path, text in found.items():
        index += f"- [{text.splitlines()[0][2:]}]({Path(path).name})\n"
    return {"guides/index.md": index, **found}


def commands() -> str:
    """What --help says of every command."""
    group = typer.main.get_command(app)
    context = group.make_context("lns-sim", [], resilient_parsing=True)
    found = (group.resolve_command(context, [name]) for name in group.list_commands(context))
    parts = (get_docs_for_click(obj=one, ctx=context, name=f"lns-sim {name}", indent=1) for name, one, _ in found)
    return "# Commands\n\n" + "\n".join(parts)


def pages() -> dict[str, str]:
    """All of them, by path."""
    outside = {page: (ROOT / name).read_text() for name, page in OUTSIDE.items()}
    return {**outside, **guides(), **reference(), "commands.md": commands()}
