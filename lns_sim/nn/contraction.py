"""einsum and tensordot as matrix products: which letters are summed, which are batch, which are rows and columns."""

from __future__ import annotations

import string
from collections.abc import Callable

import torch
from torch import Tensor


def einsum(equation: str, operands: list[Tensor], matmul: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """torch.einsum from left to right, two operands at a time, each sum of products by ``matmul``.

    Sums over one operand alone and products without a sum stay in float32, as they are no dot products.

    Raises:
        ValueError: the equation does not fit the operands.
    """
    inputs, output = _letters(equation, operands)
    for i, (x, letters) in enumerate(zip(operands, inputs)):
        operands[i], inputs[i] = _diagonal(x, letters)
    a, a_letters = operands[0], inputs[0]
    for i in range(1, len(operands)):
        later = set(output).union(*inputs[i + 1 :])
        a, a_letters = _contract(a, a_letters, operands[i], inputs[i], later, matmul)
    gone = [d for d, letter in enumerate(a_letters) if letter not in output]
    a = a.sum(gone) if gone else a
    a_letters = [letter for letter in a_letters if letter in output]
    return a.permute([a_letters.index(letter) for letter in output])


def _contract(a: Tensor, a_letters, b: Tensor, b_letters, later, matmul):
    """One step: the letters that nobody needs later are summed."""
    a, a_letters = _sum_own(a, a_letters, set(b_letters) | later)
    b, b_letters = _sum_own(b, b_letters, set(a_letters) | later)
    both = [letter for letter in a_letters if letter in b_letters]
    summed, batch = [c for c in both if c not in later], [c for c in both if c in later]
    rows, columns = [c for c in a_letters if c not in both], [c for c in b_letters if c not in both]
    out = batch + rows + columns
    if not summed:
        left = a.permute([a_letters.index(c) for c in batch + rows])[(..., *[None] * len(columns))]
        right = b.permute([b_letters.index(c) for c in batch + columns])
        return left * right[(*[slice(None)] * len(batch), *[None] * len(rows))], out
    size = {**dict(zip(b_letters, b.shape)), **dict(zip(a_letters, a.shape))}
    left = a.permute([a_letters.index(c) for c in batch + rows + summed])
    right = b.permute([b_letters.index(c) for c in batch + summed + columns])
    count = lambda letters: torch.Size([size[c] for c in letters]).numel()  # noqa: E731
    left = left.reshape(*[size[c] for c in batch], count(rows), count(summed))
    right = right.reshape(*[size[c] for c in batch], count(summed), count(columns))
    return matmul(left, right).reshape([size[c] for c in out]), out


def _diagonal(x: Tensor, letters: str):
    """Of repeated letters."""
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
    if len(inputs) != len(operands):
        raise ValueError(f"einsum's equation {equation!r} names {len(inputs)} operands, got {len(operands)}")
    free = [c for c in string.ascii_letters if c not in equation]
    dots = [x.dim() - len(letters.replace("...", "")) for x, letters in zip(operands, inputs)]
    most = max([n for n, letters in zip(dots, inputs) if "..." in letters], default=0)
    for i, (letters, n) in enumerate(zip(inputs, dots)):
        if n < 0 or (n > 0 and "..." not in letters):
            raise ValueError(f"einsum's {letters!r} does not fit an operand of shape {tuple(operands[i].shape)}")
        inputs[i] = letters.replace("...", "".join(free[most - n : most]))
    if not arrow:
        counts = {c: sum(letters.count(c) for letters in inputs) for c in "".join(inputs)}
        right = "..." + "".join(sorted(c for c, n in counts.items() if n == 1 and c not in free[:most]))
    return inputs, right.replace("...", "".join(free[:most]))


def tensordot_equation(a_dim: int, b_dim: int, dims) -> str:
    """torch.tensordot's sums as an einsum equation."""
    if isinstance(dims, int):
        pairs = [(a_dim - dims + i, i) for i in range(dims)]
    else:
        pairs = [(i % a_dim, j % b_dim) for i, j in zip(*[[d] if isinstance(d, int) else list(d) for d in dims])]
    a, b = list(string.ascii_lowercase[:a_dim]), list(string.ascii_uppercase[:b_dim])
    for i, j in pairs:
        b[j] = a[i]
    shared = {a[i] for i, _ in pairs}
    out = [c for c in a + b if c not in shared]
    return f"{''.join(a)},{''.join(b)}->{''.join(out)}"
