"""einsum and tensordot as matrix products: which letters are summed, which are batch, which are rows and columns."""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from lns_sim.ops.float_products import ours


def arguments(equation, *operands) -> tuple[str, list[Tensor]]:
    """torch.einsum's equation and operands, of any of its forms."""
    if isinstance(equation, Tensor):  # each operand followed by a list of its dimensions' numbers
        *pairs, output = (equation, *operands) if len(operands) % 2 == 0 else (equation, *operands, None)
        letters = ",".join(map(_lettered, pairs[1::2]))
        return letters if output is None else f"{letters}->{_lettered(output)}", pairs[::2]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        return equation, list(operands[0])
    return equation, list(operands)


def _check(contract: Callable[..., Tensor], operands) -> None:
    """Torch's own errors, of tensors without memory; whoever watches products sees none here."""
    with nullcontext() if torch.compiler.is_compiling() else ours():
        contract(*(torch.empty(x.shape, device="meta") for x in operands))


def _lettered(numbers) -> str:
    return "".join("..." if n is Ellipsis else (string.ascii_uppercase + string.ascii_lowercase)[n] for n in numbers)


def einsum(
    equation: str,
    operands: list[Tensor],
    matmul: Callable[[Tensor, Tensor], Tensor],
    outer: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """torch.einsum from left to right, two operands at a time, each sum of products by ``matmul``, and outer products,
    (..., M, 1) x (..., 1, N), by ``outer``.

    Sums over one operand alone and elementwise products stay in float32, as they are no dot products.

    Raises:
        RuntimeError: torch's own, of an equation that does not fit the operands.
    """
    _check(lambda *empty: torch.einsum(equation, *empty), operands)
    inputs, output = _letters(equation, operands)
    for i, (x, letters) in enumerate(zip(operands, inputs)):
        operands[i], inputs[i] = _diagonal(x, letters)
    _leave_out_broadcast(operands, inputs)
    a, a_letters = operands[0], inputs[0]
    for i in range(1, len(operands)):
        later = set(output).union(*inputs[i + 1 :])
        a, a_letters = _contract(a, a_letters, operands[i], inputs[i], later, matmul, outer)
    gone = [d for d, letter in enumerate(a_letters) if letter not in output]
    a = a.sum(gone) if gone else a
    a_letters = [letter for letter in a_letters if letter in output]
    return a.permute([a_letters.index(letter) for letter in output])


def _leave_out_broadcast(operands: list[Tensor], inputs: list[str]) -> None:
    """A dimension of size 1 that others have longer: its operand does without that letter."""
    longest: dict[str, int] = {}
    for x, letters in zip(operands, inputs):
        for n, letter in zip(x.shape, letters):
            longest[letter] = n if n != 1 else longest.get(letter, 1)
    for i, letters in enumerate(inputs):
        for d in reversed(range(len(letters))):
            if operands[i].shape[d] == 1 != longest[letters[d]]:
                operands[i] = operands[i].select(d, 0)
                inputs[i] = inputs[i][:d] + inputs[i][d + 1 :]


def _contract(a: Tensor, a_letters, b: Tensor, b_letters, later, matmul, outer):
    """One step: the letters that nobody needs later are summed."""
    a, a_letters = _sum_own(a, a_letters, set(b_letters) | later)
    b, b_letters = _sum_own(b, b_letters, set(a_letters) | later)
    both = [letter for letter in a_letters if letter in b_letters]
    summed, batch = [c for c in both if c not in later], [c for c in both if c in later]
    rows, columns = [c for c in a_letters if c not in both], [c for c in b_letters if c not in both]
    out = batch + rows + columns
    if not summed and not (rows and columns):
        left = a.permute([a_letters.index(c) for c in batch + rows])[(..., *[None] * len(columns))]
        right = b.permute([b_letters.index(c) for c in batch + columns])
        return left * right[(*[slice(None)] * len(batch), *[None] * len(rows))], out
    size = {**dict(zip(b_letters, b.shape)), **dict(zip(a_letters, a.shape))}
    left = a.permute([a_letters.index(c) for c in batch + rows + summed])
    right = b.permute([b_letters.index(c) for c in batch + summed + columns])
    count = lambda letters: torch.Size([size[c] for c in letters]).numel()  # noqa: E731
    left = left.reshape(*[size[c] for c in batch], count(rows), count(summed))
    right = right.reshape(*[size[c] for c in batch], count(summed), count(columns))
    multiply = matmul if summed else outer
    return multiply(left, right).reshape([size[c] for c in out]), out


def _diagonal(x: Tensor, letters: str):
    """The diagonal that repeated letters stand for, and its letters."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            i, j = letters.index(c), letters.rindex(c)
            x, letters = x.diagonal(0, i, j), letters[:i] + letters[i + 1 : j] + letters[j + 1 :] + c
    return x, letters


def _sum_own(x: Tensor, letters, needed):
    own = [d for d, letter in enumerate(letters) if letter not in needed]
    return (x.sum(own) if own else x), [letter for letter in letters if letter in needed]


def _letters(equation: str, operands: list[Tensor]) -> tuple[list[str], str]:
    """Every operand's letters and the output's, dots spelled out."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [c for c in string.ascii_letters if c not in equation]
    dots = [x.dim() - len(letters.replace("...", "")) for x, letters in zip(operands, inputs)]
    most = max(dots)
    inputs = [letters.replace("...", "".join(free[most - n : most])) for letters, n in zip(inputs, dots)]
    if not arrow:
        counts = {c: sum(letters.count(c) for letters in inputs) for c in "".join(inputs)}
        right = "..." + "".join(sorted(c for c, n in counts.items() if n == 1 and c not in free[:most]))
    return inputs, right.replace("...", "".join(free[:most]))


def tensordot_equation(a: Tensor, b: Tensor, dims) -> str:
    """torch.tensordot's sums as an einsum equation.

    Raises:
        RuntimeError: torch's own, of dimensions that do not fit the operands.
    """
    _check(lambda *empty: torch.tensordot(*empty, dims), (a, b))
    dims = dims.tolist() if isinstance(dims, Tensor) else dims
    if isinstance(dims, int):
        pairs = [(a.dim() - dims + i, i) for i in range(dims)]
    else:
        pairs = list(zip(*[[d] if isinstance(d, int) else list(d) for d in dims]))
    left, right = list(string.ascii_lowercase[: a.dim()]), list(string.ascii_uppercase[: b.dim()])
    for i, j in pairs:
        right[j] = left[i]
    shared = {left[i] for i, _ in pairs}
    out = [c for c in left + right if c not in shared]
    return f"{''.join(left)},{''.join(right)}->{''.join(out)}"
