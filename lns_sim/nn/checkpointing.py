"""Activation checkpointing: what is computed again in the backward pass runs in the simulation that it first ran in.

torch.utils.checkpoint calls its function once more, in whatever surroundings the backward pass has. Its two ways to do
so are given a function that brings the simulation along, and tells what quantizers keep that it repeats a step.
"""

from __future__ import annotations

import functools

from torch.utils import checkpoint

from lns_sim.nn.scope import innermost
from lns_sim.ops import memory


def _again(function):
    """The function, to be run in a simulation that begins where the innermost one stands now."""
    current = innermost()
    beginning = None if current is None else current.again()

    @functools.wraps(function)
    def run(*args, **kwargs):
        with memory.running("repeat"):
            if beginning is None:
                return function(*args, **kwargs)
            with beginning.again():
                return function(*args, **kwargs)

    return run


def install() -> None:
    """Changes both ways, once."""
    apply, forward = checkpoint.CheckpointFunction.apply, checkpoint.CheckpointFunction.forward
    generator = checkpoint._checkpoint_without_reentrant_generator

    @functools.wraps(apply)
    def learning(*args):
        with memory.running(memory.mode()):  # the first run is without gradients, and yet a step's
            return apply(*args)

    @functools.wraps(forward)
    def reentrant(ctx, run_function, *args):
        again = _again(run_function)
        out = forward(ctx, run_function, *args)
        ctx.run_function = again
        return out

    @functools.wraps(generator)
    def not_reentrant(fn, *args, **kwargs):
        return generator(_again(fn), *args, **kwargs)  # which leaves the first run to its caller

    checkpoint.CheckpointFunction.apply = staticmethod(learning)
    checkpoint.CheckpointFunction.forward = staticmethod(reentrant)
    checkpoint._checkpoint_without_reentrant_generator = not_reentrant
