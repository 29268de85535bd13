"""Programs and packages that some tests need: skipped without them, or failing with LNS_SIM_REQUIRE_TOOLS=1."""

import importlib
import importlib.util
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest
import torch

# Commands of those that go by several names or have a place of their own.
COMMANDS = {
    "browser": ("chromium", "chromium-browser", "google-chrome"),
    "c++": (os.environ.get("CXX", "g++"),),
    "nvcc": ("nvcc", "/usr/local/cuda/bin/nvcc"),
}


def require_tool(name: str) -> str:
    """The program's path."""
    found = map(shutil.which, COMMANDS.get(name, (name,)))
    return next(filter(None, found), None) or _missing(name)


def require_module(name: str) -> ModuleType:
    """The package, imported."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        _missing(name)


def require_vision(name: str) -> ModuleType:
    """A module of timm, torchvision or diffusers, imported where `make test-oldest` has installed them.

    The binary of torchvision, which timm needs, loads in one version of torch only.
    """
    if any(importlib.util.find_spec(package) is None for package in ("timm", "torchvision", "diffusers")):
        if torch.__version__.startswith("2.10."):  # of make test-oldest, which installs them
            _missing("timm, torchvision or diffusers")
        pytest.skip("timm, torchvision or diffusers is not installed; make test-oldest installs them and runs this")
    return importlib.import_module(name)


def _missing(name: str) -> NoReturn:
    if os.environ.get("LNS_SIM_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{name} is not installed, and LNS_SIM_REQUIRE_TOOLS asks for it", pytrace=False)
    pytest.skip(f"{name} is not installed (LNS_SIM_REQUIRE_TOOLS=1 makes this a failure)", allow_module_level=True)
