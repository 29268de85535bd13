"""What torch.compile needs to know, without importing the compiler (which takes a second)."""

from __future__ import annotations

from torch._C._dynamo import eval_frame


def constant_result(function):
    """``torch.compiler.assume_constant_result``: the compiler calls the function and keeps what it returns."""
    function._dynamo_marked_constant = True
    return function


def never_alone(function):
    """The compiler follows calls of the function, but never compiles it, or what it calls, alone."""
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function
