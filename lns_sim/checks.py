"""Argument checks shared by the public classes: each error names the argument, what was given, what is allowed."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Sequence

import torch

from lns_sim import _extension


def check_int(name: str, value, low: int | None, high: int | None) -> None:
    """Raises TypeError for a non-integer and ValueError outside [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if (low is not None and number < low) or (high is not None and number > high):
        if high is None:
            allowed = f"at least {low}"
        elif low is None:
            allowed = f"at most {high}"
        else:
            allowed = f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, got {value}")


def check_number(
    name: str, value, low: float, high: float = math.inf, *, low_open: bool = False, high_open: bool = False
) -> None:
    """Raises ValueError unless value is a finite number in [low, high], without the ends that are open."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    inside = low <= number <= high and not (low_open and number == low) and not (high_open and number == high)
    if not (math.isfinite(number) and inside):
        if high == math.inf:
            allowed = f"above {low:g}" if low_open else f"of at least {low:g}"
        else:
            allowed = f"in {'[('[low_open]}{low:g}, {high:g}{'])'[high_open]}"
        raise ValueError(f"{name} must be a finite number {allowed}, got {value}")


def check_bool(name: str, value) -> None:
    """Raises TypeError for anything but True and False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {value!r}")


def check_module(model) -> None:
    """Raises TypeError for anything but a module, such as its class or its output."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")


_MANY = 30  # choices that nobody reads


def check_choice(name: str, value, choices) -> None:
    """Raises ValueError with the nearest allowed name."""
    choices = list(choices)
    if value in choices:
        return
    near = nearest(str(value), choices)
    if near and len(choices) > _MANY:
        raise ValueError(f"{name} cannot be {value!r}; did you mean {near!r}?")
    hint = f"; did you mean {near!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")


def nearest(value: str, choices: Sequence[str]) -> str | None:
    """The choice that was probably meant; None where none is near."""
    return next(iter(difflib.get_close_matches(value, choices, n=1, cutoff=0.5)), None)


def differences(known, new, where: str = "") -> list[str]:
    """In words, what two pieces of plain data have different: "settings.lr is 0.1, not 0.2" (the known one's first)."""
    if isinstance(known, dict) and isinstance(new, dict):
        pairs = [(key, known.get(key, "not there"), new.get(key, "not there")) for key in {**known, **new}]
    elif isinstance(known, (list, tuple)) and isinstance(new, (list, tuple)) and len(known) == len(new):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(known, new))]
    else:
        return [] if known == new else [f"{where or 'it'} is {known!r}, not {new!r}"]
    return [text for key, a, b in pairs for text in differences(a, b, f"{where}.{key}" if where else str(key))]


def check_same(known, new, what: str) -> None:
    """Raises ValueError that names up to three differences."""
    found = differences(known, new)
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{what}: {', '.join(found[:3])}{more}")


def integers(name: str, value) -> tuple[int, ...] | None:
    """A sequence of integers, or an array of them, as a tuple; None stays. Raises TypeError for anything else."""
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name} must be a sequence of integers, one or more, got {value!r}")
    for item in value:
        check_int(name, item, None, None)
    return tuple(map(int, value))


def check_device(name: str) -> None:
    """Raises ValueError unless operators can run on the device: "cpu", or "cuda" with kernels and a GPU for it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {name!r}") from None
    check_choice("device", device.type, ("cpu", "cuda"))
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no GPU; use --device cpu")
    if _extension.load().build_info()["cuda"] is None:
        raise ValueError(f"device is cuda, but lns_sim was built without CUDA kernels: {_extension.CUDA_REBUILD}")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ValueError(f"device is {name}, but torch finds {torch.cuda.device_count()} GPUs")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0, which lns_sim needs"
        )
