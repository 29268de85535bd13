"""Words of hex files: codes in a design's own layout, integers in two's complement, and what ``$writememh`` writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lns_sim.format import LNSFormat


@dataclass(frozen=True)
class WordLayout:
    """How a design writes a code, where that is not a sign over an exponent of which 0 is zero.

    Args:
        fields: from the highest bit down, separated by commas: "s" the sign, "z" a flag that is 1 for zero, "eN" the
            exponent less ``bias`` in N bits of two's complement; a field may stand there twice. Zero's other fields
            are 0.
        bias: the code whose exponent field is 0.

    Raises:
        ValueError: fields are none of these, or have no sign, flag or exponent.
    """

    fields: str
    bias: int

    def __post_init__(self) -> None:
        names = {field[0] for field in self.parts if re.fullmatch(r"s|z|e([1-9]|1[0-6])", field)}
        if names != {"s", "z", "e"} or any(not re.fullmatch(r"s|z|e\d+", field) for field in self.parts):
            raise ValueError(f"a word has fields s, z and eN with N from 1 to 16, as in s,z,e7, got {self.fields!r}")

    @property
    def parts(self) -> list[str]:
        """The fields."""
        return self.fields.split(",")

    @property
    def bits(self) -> int:
        """Width of a word."""
        return sum(int(field[1:] or 1) for field in self.parts)

    def exponents(self, format: LNSFormat) -> tuple[int, int]:
        """The lowest and highest exponent of a code that words hold.

        Raises:
            ValueError: there is none.
        """
        half = 1 << (min(int(field[1:]) for field in self.parts if field[0] == "e") - 1)
        low, high = max(self.bias - half, 1), min(self.bias + half - 1, format.e_max)
        if low > high:
            raise ValueError(f"words of {self.fields} with bias {self.bias} hold no code of {format!r}")
        return low, high

    def word(self, code: int, format: LNSFormat) -> int:
        """The word of a code; the exponent's high bits are lost where its field holds too few (:meth:`exponents`)."""
        e = code & format.e_max
        word = 0
        for field in self.parts:
            width = int(field[1:] or 1)
            value = {"s": e > 0 and code > format.e_max, "z": e == 0, "e": e - self.bias if e else 0}[field[0]]
            word = word << width | int(value) & (1 << width) - 1
        return word

    def code(self, word: int, format: LNSFormat) -> int:
        """The code of a word.

        Raises:
            ValueError: it is no code's.
        """
        low, high = self.exponents(format)
        at, found = self.bits, {}
        for field in self.parts:
            width = int(field[1:] or 1)
            at -= width
            found[field[0]] = word >> at & (1 << width) - 1, width
        (e, width), (negative, _), (zero, _) = found["e"], found["s"], found["z"]
        e += self.bias - (e >> (width - 1) << width)
        code = 0 if zero else e | negative << (format.bits - 1)
        if not (zero or low <= e <= high) or self.word(code, format) != word:
            raise ValueError(f"{word:x} is no word of {self.fields}")
        return code


def pack(codes, f: LNSFormat, size: int, layout: WordLayout | None = None) -> list[str]:
    """The hex words of one dot product's codes of a format, one for each vector of ``size`` lanes; lanes past the last
    code hold zeros.
    """
    bits = layout.bits if layout else f.bits
    digits = -(-bits * size // 4)
    padded = [*map(int, codes), *[0] * (-len(codes) % size)]
    lanes = [layout.word(code, f) for code in padded] if layout else padded
    words = []
    for start in range(0, len(lanes), size):
        word = sum(lane << bits * i for i, lane in enumerate(lanes[start : start + size]))
        words.append(f"{word:0{digits}x}")
    return words


def unpack(words, k: int, f: LNSFormat, size: int, layout: WordLayout | None = None) -> list[int]:
    """The codes of :func:`pack`'s words."""
    bits = layout.bits if layout else f.bits
    values = [int(word, 16) for word in words]
    lanes = [values[i // size] >> bits * (i % size) & ((1 << bits) - 1) for i in range(k)]
    return [layout.code(lane, f) for lane in lanes] if layout else lanes


def hex_words(values, bits: int) -> list[str]:
    """Integers in so many bits of two's complement."""
    return [f"{int(value) & (1 << bits) - 1:0{-(-bits // 4)}x}" for value in values]


def read_words(path, bits: int, signed: bool) -> list[int]:
    """Integers from a hex file as ``$writememh`` writes it: words, ``//`` comments and ``@`` addresses.

    Raises:
        ValueError: a word that is no hex number (x and z mean that the design left it undefined), or too wide.
    """
    results = []
    for number, line in enumerate(Path(path).read_text("utf-8", errors="replace").splitlines(), 1):
        for word in line.split("//")[0].split():
            if word.startswith("@"):
                continue
            try:
                value = int(word.replace("_", ""), 16)
            except ValueError:
                raise ValueError(f"line {number} of {path} holds {word!r}, which is no hex number") from None
            extended = -(-bits // 4) * 4  # a word may be sign-extended to whole digits
            read = (value & ((1 << bits) - 1)) - (signed and value >> (bits - 1) & 1) * (1 << bits)
            if value != read & ((1 << bits) - 1) and value != read & ((1 << extended) - 1):
                raise ValueError(f"line {number} of {path} holds {word!r}, which does not fit {bits} bits")
            results.append(read)
    return results
