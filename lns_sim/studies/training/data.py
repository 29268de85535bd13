"""Data sets: labelled float32 samples, normalized per channel by the training set's mean and deviation, or text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from lns_sim.checks import check_choice, check_number
from lns_sim.npz import read_npz

if TYPE_CHECKING:
    from lns_sim.studies.training.text import Tokenizer

KINDS = ("digits", "npz", "openml", "text")


@dataclass(frozen=True)
class Data:
    """Samples: x float32 (N, C, H, W) or (N, features), y int64 (N,). Text: x and y int64 (N, context), y the next
    tokens.
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    tokenizer: Tokenizer | None = None  # of text

    @property
    def classes(self) -> int:
        """Classes, or tokens of the vocabulary."""
        return int(self.y_train.max()) + 1 if self.tokenizer is None else self.tokenizer.size

    @property
    def measure(self) -> str:
        """What a test gives: "test accuracy %" or, of text, "validation loss" in nats a token."""
        return "test accuracy %" if self.tokenizer is None else "validation loss"

    def held_out(self, share: float) -> Data:
        """The training set alone, its last ``share`` (of a fixed shuffle) in the place of the test set: for tuning.

        Raises:
            ValueError: share is not in (0, 1), or leaves a side empty.
        """
        check_number("held_out", share, 0.0, math.nextafter(1.0, 0.0), low_open=True)
        order = torch.randperm(len(self.x_train), generator=torch.Generator().manual_seed(0))
        held = round(share * len(order))
        if not 0 < held < len(order):
            raise ValueError(f"held_out = {share} of {len(order)} samples leaves a side empty")
        train, test = order[:-held], order[-held:]
        name = f"{self.name}, {share:g} of the training set held out"
        x, y = self.x_train, self.y_train
        return replace(self, name=name, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.x_train.shape[1:])


def load(source: str, context: int = 128, tokens: str = "byte") -> Data:
    """Labelled samples or text by name.

    Sources are "digits", "npz:PATH" (arrays x_train, y_train, x_test, y_test), "openml:NAME" (through scikit-learn),
    "text:PATH", and "text" (Python's standard library).

    Args:
        source: which.
        context, tokens: of text, see :func:`lns_sim.studies.training.text.load`.

    Raises:
        ValueError: an unknown kind, or contents that are missing or do not fit.
        FileNotFoundError: no such file.
    """
    kind, _, rest = source.partition(":")
    check_choice("data", kind, KINDS)
    if kind == "digits":
        return _digits()
    if kind == "text":
        from lns_sim.studies.training import text  # which makes Data

        return text.load(rest or None, context, tokens)
    if not rest:
        raise ValueError(f"data {source!r} needs a {'path' if kind == 'npz' else 'name'} after the colon")
    return _npz(rest) if kind == "npz" else _openml(rest)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _split("digits", digits.images, digits.target)


def _openml(name: str) -> Data:
    from sklearn.datasets import fetch_openml

    bunch = fetch_openml(name, version=1, as_frame=False, parser="auto")
    x = np.asarray(bunch.data, dtype=np.float32)
    side = math.isqrt(x.shape[1])
    if side * side == x.shape[1]:
        x = x.reshape(-1, side, side)
    _, y = np.unique(bunch.target, return_inverse=True)
    return _split(name, x, y)


def _split(name: str, x, y) -> Data:
    """A quarter for testing, the same for everyone."""
    from sklearn.model_selection import train_test_split

    parts = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    return _normalized(name, parts[0], parts[2], parts[1], parts[3])


def _npz(path: str) -> Data:
    arrays = read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
    for x, y, part in ((arrays[0], arrays[1], "train"), (arrays[2], arrays[3], "test")):
        if x.ndim < 2 or x.dtype.kind not in "biuf":
            raise ValueError(f"{path}: x_{part} must hold numbers, a sample a row, got {x.dtype} {x.shape}")
        if y.ndim != 1 or y.dtype.kind not in "biuf" or (y < 0).any() or (y != np.floor(y)).any():
            raise ValueError(f"{path}: y_{part} must hold classes from 0 on, got {y.dtype} {y.shape}")
        if len(x) != len(y):
            raise ValueError(f"{path}: x_{part} has {len(x)} samples, y_{part} {len(y)}")
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise ValueError(
            f"{path}: x_train and x_test have samples of shapes {arrays[0].shape[1:]}, {arrays[2].shape[1:]}"
        )
    return _normalized(path, *arrays)


def _images(x: np.ndarray) -> torch.Tensor:
    """Floats with channels first; (N, H, W) gets one channel, a last dimension of 1 or 3 is the channels."""
    t = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    if t.dim() == 3:
        return t.unsqueeze(1)
    if t.dim() == 4 and t.shape[-1] in (1, 3) and t.shape[1] not in (1, 3):
        return t.permute(0, 3, 1, 2).contiguous()
    return t


def _normalized(name: str, x_train, y_train, x_test, y_test) -> Data:
    train, test = _images(x_train), _images(x_test)
    over = (0, 2, 3) if train.dim() == 4 else (0,)
    mean = train.mean(over, keepdim=True)
    deviation = train.std(over, keepdim=True).clamp_min(1e-6) if train.dim() == 4 else train.std().clamp_min(1e-6)
    labels = [torch.from_numpy(np.asarray(y).astype(np.int64)) for y in (y_train, y_test)]
    return Data(name, (train - mean) / deviation, labels[0], (test - mean) / deviation, labels[1])
