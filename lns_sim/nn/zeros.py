"""Weights that begin as zeros, which multiplicative updates never move: told of, or begun at the smallest code."""

from __future__ import annotations

import warnings

import torch

from lns_sim.functional import quantize
from lns_sim.random import STREAMS, draw, random_state
from lns_sim.tensor import LNSTensor

ZEROS = ("keep", "smallest")
BEFORE_TRAINING = (1 << 32) - 1  # a step that no training reaches


class ZeroWeightsWarning(UserWarning):
    """Weights that are to be trained are mostly zeros, which stay zero."""


def mostly_zero(weight: torch.Tensor) -> bool:
    """Is at least half of it zero? Fewer zeros are taken for meant: rows of padding, a pruned connection."""
    return not weight.is_meta and weight.numel() > 0 and 2 * int(torch.count_nonzero(weight)) <= weight.numel()


def warn(names: list[str], stacklevel: int) -> None:
    """Names the weights, if there are any, where the caller's caller called, or further out."""
    if names:
        warnings.warn(
            f"at least half of {', '.join(names)} is zero and will stay zero, as multiplicative updates move no zeros; "
            'initialize otherwise, or convert(..., zeros="smallest") to begin there with the smallest code',
            ZeroWeightsWarning,
            stacklevel=stacklevel + 1,
        )


def smallest_codes(weight: LNSTensor, seed: int, tensor_id: int) -> LNSTensor:
    """The weight with its zeros at the smallest magnitude, of random signs; one without any number at the scale of a
    tensor whose largest is 1.

    Args:
        weight: of one scale.
        seed, tensor_id: of the signs; the id is the first of the weight's streams.
    """
    f, zero = weight.format, (weight.codes.to(torch.int64) & weight.format.e_max) == 0
    rng = random_state(seed, BEFORE_TRAINING, tensor_id + STREAMS["update"], weight.device)
    negative = draw(torch.zeros(weight.shape, device=weight.device), rng) < 0.5
    smallest = torch.where(negative, f.e_max + 2, 1)  # exponent 1; the sign bit is e_max + 1
    codes = torch.where(zero, smallest, weight.codes).to(f.dtype)
    of_one = quantize(torch.ones((), device=weight.device), f).scale
    return LNSTensor(codes, torch.where(zero.all(), of_one, weight.scale), f)
