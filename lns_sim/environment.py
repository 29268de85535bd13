"""How numbers were made: command, versions, processor, GPUs and how the extension was built."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path

import torch

from lns_sim import _extension
from lns_sim.version import __version__


def cpu_name() -> str:
    """The processor as it names itself, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment() -> dict:
    """What a reader needs to know to compare numbers."""
    core = _extension.load()
    return {
        "lns_sim": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "isa": core.isa(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "build": core.build_info(),
    }


def command() -> str:
    """What this process was started with, as a shell takes it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m
    if module is not None and sys.argv[0].endswith(".py"):
        return shlex.join(["python", "-m", module.name.removesuffix(".__main__"), *sys.argv[1:]])
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def provenance(**known: object) -> dict:
    """What every artefact says about how it was made: the commands (one, or several where a study went on), what the
    caller knows (recipe, data, seed), and the :func:`environment`.
    """
    return {"commands": [command()], **known, "environment": environment()}


def caption(made: dict) -> str:
    """A picture's caption, of a record that :func:`provenance` began: command, data, versions and machine."""
    known = made["environment"]
    first, *more = made["commands"]
    command = f"{first} (and {more[-1]})" if more else first
    data = f" data {made['data']['fingerprint']};" if "data" in made else ""
    gpus = "".join(f", {name}" for name in dict.fromkeys(known["gpus"]))
    versions = f"lns_sim {known['lns_sim']}, torch {known['torch']}; {known['cpu']} ({known['isa']}){gpus}"
    return f"{command};{data} {versions}"
