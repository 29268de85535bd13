"""Random tensors of codes, and the bridge from LNSTensors to the reference."""

from pathlib import Path

import numpy as np
import torch

import lns_sim
from lns_sim import LNSTensor

ROOT = Path(__file__).parents[2]
core = lns_sim._extension.load()
ISAS = core.available_isas()
HAVE_CUDA = torch.cuda.is_available() and core.build_info()["cuda"] is not None
DEVICES = ["cpu"] + ["cuda"] * HAVE_CUDA


def moved(value, device):
    """Tensors, also within lists and tuples, on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return type(value)(moved(v, device) for v in value) if type(value) in (list, tuple) else value


def same(a, b) -> bool:
    """Equal results: tensors with equal bits, codes, scales and shifts, or anything that compares."""
    if isinstance(a, LNSTensor):
        of_blocks = (getattr(t, "shifts", None) for t in (a, b))
        return same(a.codes, b.codes) and same(a.scale, b.scale) and same(*of_blocks)
    if isinstance(a, torch.Tensor):
        a, b = a.cpu(), b.cpu()
        if a.is_floating_point() and a.element_size() <= 4:  # float32 holds the narrower ones
            return a.dtype == b.dtype and same_bits(a.float(), b.float())
        return torch.equal(a, b)
    return all(map(same, a, b)) if isinstance(a, tuple) else a == b


def everywhere(function, *args, **kwargs):
    """The result on the CPU, after every other device has given the same bits."""
    result = function(*args, **kwargs)
    for device in DEVICES[1:]:
        other = function(*moved(args, device), **moved_dict(kwargs, device))
        assert same(result, other), f"{device} differs from cpu"
    return result


def moved_dict(values, device):
    return {name: moved(value, device) for name, value in values.items()}


def random_codes(shape, fmt, rng, zeros=0.1, k=0):
    """An LNSTensor of uniform random codes, a share of them zero (some of them -0)."""
    codes = rng.integers(0, 1 << fmt.bits, size=shape)
    codes = np.where(rng.random(size=shape) < zeros, rng.choice([0, 1 << (fmt.bits - 1)], size=shape), codes)
    dtype = np.uint8 if fmt.bits <= 8 else np.int16
    return LNSTensor(torch.from_numpy(codes.astype(dtype)), torch.tensor(2.0**k), fmt)


def to_reference(x: LNSTensor):
    """(codes, k) as the reference takes them: unsigned integers, scale exponents."""
    codes = x.codes.numpy().astype(np.int64) & ((1 << x.format.bits) - 1)
    k = x.k.numpy().astype(np.int64)
    return codes, int(k) if k.ndim == 0 else k


def unsigned(codes: torch.Tensor, fmt) -> np.ndarray:
    return codes.numpy().astype(np.int64) & ((1 << fmt.bits) - 1)


def same_bits(a, b) -> bool:
    """Equal float32 bit patterns (any NaN equals any NaN)."""
    a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    both_nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and bool((both_nan | (a.view(np.uint32) == b.view(np.uint32))).all())


def flat(state):
    """A nested state by the paths of what it holds."""
    if isinstance(state, dict):
        return {f"{key}.{name}": x for key, value in state.items() for name, x in flat(value).items()}
    if isinstance(state, (list, tuple)):
        return flat(dict(enumerate(state)))
    return {"": state}
