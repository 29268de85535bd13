"""Data sets: labelled float32 samples, normalized per channel by the training set's mean and deviation, or text."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from lns_sim.checks import check_choice, check_number
from lns_sim.npz import read_npz
from lns_sim.studies.own import call, named

if TYPE_CHECKING:
    from lns_sim.studies.training.text import Tokenizer

KINDS = ("digits", "npz", "openml", "text")


@dataclass(frozen=True)
class Data:
    """Samples: x float32 (N, C, H, W) or (N, features), y int64 (N,). Text: x and y int64 (N, context), y the next
    tokens.

    Attributes:
        name: how tables call it.
        x_train, y_train, x_test, y_test: samples and labels.
        tokenizer: of text.
        origin: the arguments of :func:`load` that give the same again; empty where it was not loaded.
        fingerprint: of the samples before they are normalized: equal where the data are the same.
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    tokenizer: Tokenizer | None = None
    origin: dict = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self):
        if not self.fingerprint:
            parts = (self.x_train, self.y_train, self.x_test, self.y_test)
            object.__setattr__(self, "fingerprint", fingerprint(*(t.detach().cpu().numpy() for t in parts)))

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
        check_number("held_out", share, 0.0, 1.0, low_open=True, high_open=True)
        order = torch.randperm(len(self.x_train), generator=torch.Generator().manual_seed(0))
        held = round(share * len(order))
        if not 0 < held < len(order):
            raise ValueError(f"held_out = {share} of {len(order)} samples leaves a side empty")
        train, test = order[:-held], order[-held:]
        name = f"{self.name}, {share:g} of the training set held out"
        x, y = self.x_train, self.y_train
        return replace(
            self,
            name=name,
            x_train=x[train],
            y_train=y[train],
            x_test=x[test],
            y_test=y[test],
            origin={**self.origin, "held_out": share},
            fingerprint=f"{self.fingerprint} without {share!r}",
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a sample: (C, H, W) of images, (features,), or (context,) of text."""
        return tuple(self.x_train.shape[1:])

    def describe(self) -> dict:
        """What records and checkpoints say of it, as plain data."""
        known = {"name": self.name, "origin": self.origin, "fingerprint": self.fingerprint, "measure": self.measure}
        return {**known, "shape": list(self.input_shape), "classes": self.classes}


def fingerprint(*arrays: np.ndarray) -> str:
    """The first 16 hex digits of a SHA-256 of shapes, types and contents."""
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(f"{a.dtype.str} {a.shape}".encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()[:16]


def load(source: str, context: int | None = None, tokens: str | None = None, held_out: float | None = None) -> Data:
    """Labelled samples or text by name.

    Sources are "digits", "npz:PATH" (arrays x_train, y_train, x_test, y_test), "openml:NAME" (through scikit-learn),
    "text:PATH" (a file, or a folder's *.py), "text:python" (Python's standard library), "text" (its first megabyte),
    and "MODULE:FUNCTION", which returns a Data, or four such arrays or tensors.

    Args:
        source: which.
        context, tokens: of text, see :func:`lns_sim.studies.training.text.load`; None: 128, "byte".
        held_out: see :meth:`Data.held_out`; None: the test set tests.

    Raises:
        ValueError: an unknown kind, contents that are missing or do not fit, or context and tokens without a text.
        FileNotFoundError: no such file.
    """
    kind, colon, rest = source.partition(":")
    if kind not in KINDS and not (colon and rest):
        check_choice("data", kind, KINDS)
    if kind != "text" and (context is not None or tokens is not None):
        raise ValueError(f"context and tokens are of text, but the data is {source!r}")
    origin: dict = {"source": source}
    if kind == "text":
        from lns_sim.studies.training import text  # which makes Data

        context = text.CONTEXT if context is None else context
        tokens = text.TOKENS if tokens is None else tokens
        origin |= {"context": context, "tokens": tokens}
        found = text.load(rest or None, context, tokens)
    elif kind == "digits":
        found = _digits()
    elif kind not in KINDS:
        found = _own(source)
    elif not rest:
        raise ValueError(f"data {source!r} needs a {'path' if kind == 'npz' else 'name'} after the colon")
    else:
        found = _npz(rest) if kind == "npz" else _openml(rest)
    found = replace(found, origin=origin)
    return found if held_out is None else found.held_out(held_out)


def _own(source: str) -> Data:
    made = named(source)
    found = call(source, made) if callable(made) else made
    if isinstance(found, Data):
        return found
    if not isinstance(found, (tuple, list)) or len(found) != 4:
        raise TypeError(f"{source} must give x_train, y_train, x_test, y_test or a Data, got {type(found).__name__}")
    return _checked(source, [np.asarray(part) for part in found])


def _digits() -> Data:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the data digits comes with scikit-learn: pip install scikit-learn") from None

    digits = load_digits()
    return _split("digits", digits.images, digits.target)


def _openml(name: str) -> Data:
    try:
        from sklearn.datasets import fetch_openml
    except ImportError:
        raise ImportError("openml: is read by scikit-learn: pip install scikit-learn") from None

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
    return _checked(path, read_npz(path, ("x_train", "y_train", "x_test", "y_test")))


def _checked(name: str, arrays: list[np.ndarray]) -> Data:
    """Data of arrays that a user brings.

    Raises:
        ValueError: they are no labelled samples; the message says where they come from, and what is wrong.
    """
    for x, y, part in ((arrays[0], arrays[1], "train"), (arrays[2], arrays[3], "test")):
        if x.ndim < 2 or x.dtype.kind not in "biuf":
            raise ValueError(f"{name}: x_{part} must hold numbers, a sample a row, got {x.dtype} {x.shape}")
        if x.size == 0:
            raise ValueError(f"{name}: x_{part} holds no samples, its shape is {x.shape}")
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x.reshape(len(x), -1)).all(1)).argmax())
            raise ValueError(f"{name}: x_{part} holds NaN or Inf, first in sample {bad}")
        if y.ndim == 2 and y.dtype.kind in "biuf" and (y.sum(1) == 1).all():
            raise ValueError(f"{name}: y_{part} holds one-hot rows, not classes; y_{part}.argmax(1) makes them")
        if y.ndim != 1 or y.dtype.kind not in "biuf":
            raise ValueError(f"{name}: y_{part} must hold a class for each sample, got {y.dtype} {y.shape}")
        if len(x) != len(y):
            raise ValueError(f"{name}: x_{part} has {len(x)} samples, y_{part} {len(y)}")
        wrong = ~((y >= 0) & (y == np.floor(y)))
        if wrong.any():
            raise ValueError(f"{name}: y_{part} must hold classes from 0 on, got {y[wrong][0]} in {wrong.argmax()}")
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise ValueError(
            f"{name}: x_train and x_test have samples of shapes {arrays[0].shape[1:]}, {arrays[2].shape[1:]}"
        )
    if arrays[3].max() > arrays[1].max():
        raise ValueError(f"{name}: y_test holds the class {arrays[3].max():g}, which y_train never shows")
    return _normalized(name, *arrays)


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
    known = fingerprint(*map(np.asarray, (x_train, y_train, x_test, y_test)))
    return Data(name, (train - mean) / deviation, labels[0], (test - mean) / deviation, labels[1], fingerprint=known)
