"""Models and data of one's own, named as module:name."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn


def named(name: str) -> object:
    """What a module of the current directory, or an installed one, calls so.

    Args:
        name: "module:name".

    Raises:
        ImportError, ValueError: there is no such module, it raises, or nothing in it has that name.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(_tried(f"importing {module}", lambda: importlib.import_module(module)), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f"{name}: there is no module {module} here or among the installed ones") from None
    if found is None:
        raise ValueError(f"{module} has no {attribute}")
    return found


def call(name: str, function: Callable) -> Any:
    """What a function of one's own returns.

    Raises:
        ValueError: it raises.
    """
    return _tried(f"{name}()", function)


def _tried(what: str, work: Callable) -> Any:
    """What it returns; what it raises becomes an error that names it, but for one that says itself what is missing."""
    try:
        return work()
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{what} raised {type(error).__name__}: {error}") from error


def made_by(name: str) -> nn.Module:
    """The model that a function, named as "module:function", returns, or a copy of one named so itself.

    Raises:
        ImportError, ValueError, TypeError: there is none, or it raises.
    """
    found = named(name)
    if isinstance(found, nn.Module):
        return copy.deepcopy(found)
    if not callable(found):
        raise TypeError(f"{name} must be a torch module or a function that returns one, got {type(found).__name__}")
    model = call(name, found)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}() must return a torch module, got {type(model).__name__}")
    return model
