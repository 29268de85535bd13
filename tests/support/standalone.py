"""Builds the torch-free C++ into programs of their own."""

import subprocess
from pathlib import Path

from helpers import ROOT


def compile_all(compiler: str, flags: list[str], sources: list[Path], folder: Path) -> list[Path]:
    """The objects of the sources, two compilations at a time."""
    objects, running = [], []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        command = [compiler, "-std=c++20", *flags, "-ffp-contract=off", "-Wno-psabi", f"-I{ROOT / 'csrc'}"]
        running.append(subprocess.Popen([*command, "-c", source, "-o", objects[-1]]))
        if len(running) % 2 == 0:
            assert all(p.wait() == 0 for p in running)
    assert all(p.wait() == 0 for p in running)
    return objects


def sources(*folders: str) -> list[Path]:
    """The C++ files of folders of the repository."""
    return sorted(f for folder in folders for f in (ROOT / folder).glob("*.cpp"))
