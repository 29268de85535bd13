"""Text for language models: bytes or byte-pair tokens, cut into windows; the last tenth validates."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from lns_sim.checks import check_int
from lns_sim.studies.training.data import Data

STANDARD_LIBRARY_BYTES = 1 << 20
CONTEXT, TOKENS = 128, "byte"  # unless one asks for others
PYTHON = "python"  # instead of a path: all of the standard library
_PIECE = 1 << 16  # bytes that are encoded at a time, to the end of a line
_BATCH = 256  # pieces that the library encodes in parallel


class Tokenizer(Protocol):
    """What turns bytes into tokens and back."""

    size: int

    def encode(self, texts: Sequence[bytes]) -> np.ndarray: ...

    def decode(self, tokens: list[int]) -> str: ...


class Bytes:
    """A token is a byte."""

    size = 256

    def encode(self, texts: Sequence[bytes]) -> np.ndarray:
        return np.frombuffer(b"".join(texts), dtype=np.uint8)

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


class BytePairs:
    """Byte-pair tokens, learned from texts (the library ``tokenizers``; extra "text").

    Raises:
        ValueError: the library is not installed.
    """

    def __init__(self, texts: Sequence[bytes], size: int):
        try:
            from tokenizers import Tokenizer as Model
            from tokenizers import decoders, models, pre_tokenizers, trainers
        except ImportError:
            raise ValueError("byte-pair tokens need the library tokenizers: pip install tokenizers") from None
        self._model = Model(models.BPE())
        self._model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._model.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
        self._model.train_from_iterator(_pieces(texts), trainer)
        self.size = self._model.get_vocab_size()

    def encode(self, texts: Sequence[bytes]) -> np.ndarray:
        pieces = list(_pieces(texts))
        batches = (pieces[i : i + _BATCH] for i in range(0, len(pieces), _BATCH))
        found = [np.array(e.ids, dtype=np.int32) for b in batches for e in self._model.encode_batch_fast(b)]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int32)

    def decode(self, tokens: list[int]) -> str:
        return self._model.decode(tokens)


def _pieces(texts: Iterable[bytes]) -> Iterable[str]:
    """The texts, long ones cut at the ends of lines."""
    for text in texts:
        begin = 0
        while begin < len(text):
            end = text.find(b"\n", begin + _PIECE) + 1 or len(text)
            yield text[begin:end].decode("utf-8", errors="replace")
            begin = end


def python_sources(folder: Path) -> list[bytes]:
    """All ``*.py`` below a folder but what is installed into it (``site-packages``), in a fixed random order, a line
    end behind each; what is no UTF-8 is left out, and of equal files all but one.

    Raises:
        ValueError: there are none.
    """
    names = sorted(name for name in (f.relative_to(folder) for f in folder.rglob("*.py")) if is_own(name))
    random.Random(0).shuffle(names)
    texts = dict.fromkeys((folder / name).read_bytes() for name in names)
    found = [text + b"\n" for text in texts if is_utf8(text)]
    if not found:
        raise ValueError(f"there are no Python sources (*.py) below {folder}")
    return found


def is_own(name: Path) -> bool:
    """Is a file, by its path below a folder, no part of what is installed into it?"""
    return "site-packages" not in name.parts


def is_utf8(text: bytes) -> bool:
    """Is it text at all?"""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def standard_library() -> Path:
    """Where the running interpreter's is."""
    return Path(sysconfig.get_paths()["stdlib"])


def _first_megabyte() -> bytes:
    """Of the standard library's own top-level modules, in a fixed random order."""
    files = sorted(standard_library().glob("*.py"))
    random.Random(0).shuffle(files)
    return b"\n".join(f.read_bytes() for f in files)[:STANDARD_LIBRARY_BYTES]


def read(path: str | None) -> tuple[str, list[bytes], list[bytes]]:
    """What tables call a text, and its training and validation part: nine tenths and one of a file, or of a folder's
    sources, whole files in each part.

    Args:
        path: a file, or a folder of Python sources; "python": the standard library; None: its first megabyte.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder without sources.
    """
    if path is None or (path != PYTHON and not Path(path).is_dir()):
        text = _first_megabyte() if path is None else Path(path).read_bytes()
        cut = len(text) * 9 // 10
        name = "the first megabyte of Python's standard library" if path is None else Path(path).name
        return name, [text[:cut]], [text[cut:]]
    folder = standard_library() if path == PYTHON else Path(path)
    texts = python_sources(folder)
    ends = np.cumsum([len(text) for text in texts])
    files = max(int(np.searchsorted(ends, 0.9 * ends[-1], side="right")), 1)
    name = "Python's standard library" if path == PYTHON else f"Python sources of {folder.resolve().name}"
    return name, texts[:files], texts[files:]


def load(path: str | None, context: int, tokens: str) -> Data:
    """Windows of ``context`` tokens of a text as inputs, and shifted by one as labels.

    Args:
        path: see :func:`read`.
        context: tokens a window.
        tokens: "byte", or "bpe:N" for N byte-pair tokens learned from the training part.

    Raises:
        ValueError: an argument is out of range, or the text too short for a window in each part.
        FileNotFoundError: no such file.
    """
    check_int("context", context, 2, 1 << 16)
    name, *texts = read(path)
    if tokens == "byte":
        tokenizer: Tokenizer = Bytes()
    elif tokens.startswith("bpe:") and tokens[4:].isdigit() and int(tokens[4:]) >= 256:
        tokenizer = BytePairs(texts[0], int(tokens[4:]))
    else:
        raise ValueError(f"tokens must be byte or bpe:N with N of at least 256, got {tokens!r}")
    parts = []
    for kind, part in zip(("training", "validation"), texts):
        ids = torch.from_numpy(tokenizer.encode(part).astype(np.int64))
        count = (len(ids) - 1) // context
        if count < 1:
            raise ValueError(
                f"the text's {kind} part has {len(ids)} tokens, too few for a window of {context} and one more"
            )
        parts += [ids[: count * context].view(count, context), ids[1 : count * context + 1].view(count, context)]
    return Data(f"{name}, {tokens} tokens", *parts, tokenizer=tokenizer)
