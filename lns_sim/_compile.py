"""What torch.compile needs to know, without importing the compiler (which takes a second)."""

from __future__ import annotations

import sys

from torch._C._dynamo import eval_frame
from torch.overrides import get_overridable_functions


def constant_result(function):
    """``torch.compiler.assume_constant_result``: the compiler calls the function and keeps what it returns."""
    function._dynamo_marked_constant = True
    return function


def never_alone(function):
    """The compiler follows calls of the function, but never compiles it, or what it calls, alone."""
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function


def never(function):
    """``torch.compiler.disable``: neither followed nor compiled."""
    function._torchdynamo_disable = True
    return never_alone(function)


def show(functions) -> None:
    """Compiled code, too, calls modes of torch for these functions, of which torch's own list holds only the public."""
    get_overridable_functions().setdefault(show, []).extend(functions)
    if compiler := sys.modules.get("torch._dynamo.variables.torch"):  # which has read the list
        compiler.get_overridable_functions().update(functions)
