"""What torch.compile needs to know, without importing the compiler (which takes a second)."""

from __future__ import annotations


def constant_result(function):
    """``torch.compiler.assume_constant_result``: the compiler calls the function and keeps what it returns."""
    function._dynamo_marked_constant = True
    return function
