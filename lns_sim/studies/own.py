"""Models and data of one's own, named as module:name."""

from __future__ import annotations

import copy
import importlib
import os
import sys

from torch import nn


def named(name: str) -> object:
    """What a module of the current directory, or an installed one, calls so.

    Args:
        name: "module:name".

    Raises:
        ImportError, ValueError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f"{name}: there is no module {module} here or among the installed ones") from None
    if found is None:
        raise ValueError(f"{module} has no {attribute}")
    return found


def made_by(name: str) -> nn.Module:
    """The model that a function, named as "module:function", returns, or a copy of one named so itself.

    Raises:
        ImportError, ValueError, TypeError: there is none.
    """
    found = named(name)
    if isinstance(found, nn.Module):
        return copy.deepcopy(found)
    if not callable(found):
        raise TypeError(f"{name} must be a torch module or a function that returns one, got {type(found).__name__}")
    model = found()
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}() must return a torch module, got {type(model).__name__}")
    return model
