"""The documentation site: every page is in its navigation, every public name and command in its reference."""

import importlib
import inspect
import pkgutil
import re
import runpy

import yaml
from helpers import ROOT

import lns_sim
from lns_sim.command.app import COMMANDS

SITE = runpy.run_path(str(ROOT / "docs/site/pages.py"))
PAGES = SITE["pages"]()


def leaves(nav):
    for item in nav:
        for value in item.values() if isinstance(item, dict) else [item]:
            yield from leaves(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation():
    nav = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted([*written, *PAGES])


def test_every_public_name_is_in_the_reference():
    shown = set()
    for path in re.findall(r"options: {heading: (.*)}", "".join(SITE["reference"]().values())):
        module, _, name = path.rpartition(".")
        shown.add(id(getattr(importlib.import_module(module), name)))
    packages = [importlib.import_module(m.name) for m in pkgutil.walk_packages(lns_sim.__path__, "lns_sim.") if m.ispkg]
    gathered = [value for value in map(vars(lns_sim).get, lns_sim.__all__) if inspect.ismodule(value)]
    for module in [lns_sim, *gathered, *(p for p in packages if hasattr(p, "__all__"))]:
        for name in SITE["public"](module):
            assert id(getattr(module, name)) in shown, f"{module.__name__}.{name}"
    assert len(shown) > 80


def test_every_command_and_option_is_in_the_reference():
    assert re.findall(r"^## `lns-sim (.*)`$", PAGES["commands.md"], re.M) == list(COMMANDS)
    assert "`--keep-fraction`" in PAGES["commands.md"]


def test_a_guide_is_text_and_code():
    text = SITE["guide"](
        '"""A thing: how.\n\nRun it: python x.py [DIR] (short)\n"""\n\nimport a\n\n# 1. Why.\nb = a\n# so\n\nc = b\n'
    )
    assert text.splitlines()[:5] == ["# A thing", "", "A thing: how.", "", "Run it: `python x.py [DIR]` (short)"]
    assert "```python\nimport a\n```" in text and "\n**1.** Why.\n\n```python\nb = a\n# so\n\nc = b\n```" in text
