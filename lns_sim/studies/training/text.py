"""Text for language models: bytes or byte-pair tokens, cut into windows; the last tenth validates."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path
from typing import Protocol

import torch

from lns_sim.checks import check_int
from lns_sim.studies.training.data import Data

STANDARD_LIBRARY_BYTES = 1 << 20
CONTEXT, TOKENS = 128, "byte"  # unless one asks for others


class Tokenizer(Protocol):
    """What turns bytes into tokens and back."""

    size: int

    def encode(self, text: bytes) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


class Bytes:
    """A token is a byte."""

    size = 256

    def encode(self, text: bytes) -> list[int]:
        return list(text)

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


class BytePairs:
    """Byte-pair tokens, learned from a text (the library ``tokenizers``; extra "text").

    Raises:
        ValueError: the library is not installed.
    """

    def __init__(self, text: bytes, size: int):
        try:
            from tokenizers import ByteLevelBPETokenizer
        except ImportError:
            raise ValueError("byte-pair tokens need the library tokenizers: pip install tokenizers") from None
        self._model = ByteLevelBPETokenizer()
        lines = text.decode("utf-8", errors="replace").splitlines(True)
        self._model.train_from_iterator(lines, vocab_size=size, show_progress=False)
        self.size = self._model.get_vocab_size()

    def encode(self, text: bytes) -> list[int]:
        return self._model.encode(text.decode("utf-8", errors="replace")).ids

    def decode(self, tokens: list[int]) -> str:
        return self._model.decode(tokens)


def standard_library() -> bytes:
    """The first megabyte of the running interpreter's own top-level modules, in a fixed random order."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    random.Random(0).shuffle(files)
    return b"\n".join(f.read_bytes() for f in files)[:STANDARD_LIBRARY_BYTES]


def load(path: str | None, context: int, tokens: str) -> Data:
    """Windows of ``context`` tokens of a file, or of :func:`standard_library`, as inputs, and shifted by one as labels.

    Args:
        path: the file; None for the standard library.
        context: tokens a window.
        tokens: "byte", or "bpe:N" for N byte-pair tokens learned from the training part.

    Raises:
        ValueError: an argument is out of range, or the text too short for a window in each part.
        FileNotFoundError: no such file.
    """
    check_int("context", context, 2, 1 << 16)
    text = Path(path).read_bytes() if path else standard_library()
    cut = len(text) * 9 // 10
    if tokens == "byte":
        tokenizer: Tokenizer = Bytes()
    elif tokens.startswith("bpe:") and tokens[4:].isdigit() and int(tokens[4:]) >= 256:
        tokenizer = BytePairs(text[:cut], int(tokens[4:]))
    else:
        raise ValueError(f"tokens must be byte or bpe:N with N of at least 256, got {tokens!r}")
    parts = []
    for name, part in (("training", text[:cut]), ("validation", text[cut:])):
        ids = torch.tensor(tokenizer.encode(part), dtype=torch.int64)
        count = (len(ids) - 1) // context
        if count < 1:
            raise ValueError(
                f"the text's {name} part has {len(ids)} tokens, too few for a window of {context} and one more"
            )
        parts += [ids[: count * context].view(count, context), ids[1 : count * context + 1].view(count, context)]
    name = Path(path).name if path else "Python's standard library"
    return Data(f"{name}, {tokens} tokens", *parts, tokenizer=tokenizer)
