"""Correction tables of log-domain addition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from lns_sim.checks import check_choice, check_int, integers

KINDS = ("exact", "coarse", "shift", "segments", "lists")
_OWN = {"coarse": ("drop",), "segments": ("plus", "minus"), "lists": ("plus", "minus", "bound")}  # arguments
MOST_ENTRIES = 1 << 17
LARGEST_ENTRY = (1 << 20) - 1

Points = tuple[tuple[int, int], ...]


@dataclass(frozen=True, repr=False)
class LogTables:
    """What a sum adds to the larger of two logarithms, by their distance d in the accumulator's steps (spec section 7).

    With ``G`` steps per octave, ``plus[d]`` is added where signs are equal, ``minus[d]`` taken off where they differ;
    behind the end of a table the entry is 0. Constructors: ``LogTables("exact")``, ``LogTables("shift")``,
    :meth:`coarse`, :meth:`segments`, :meth:`lists`.

    Args:
        kind: "exact": ``G log2(1 + 2^(-d/G))`` and ``-G log2(1 - 2^(-d/G))``, each rounded to the nearest integer.
            "coarse": the same in steps of ``2^drop``. "shift": ``G >> (d div G)`` and ``(3G/2) >> (d div G)``, after
            Sanyal, Beerel and Chugg, arXiv 1910.09876. "segments": straight lines between points. "lists": as given.
        drop: of "coarse", low bits of the distance that are not looked at, 1 to 16: all distances that differ in these
            only take the entry of the middle one.
        plus, minus: of "lists", entries from 0 to 2^20 - 1, by distance from 0 on; ``minus[0]`` is not read. Of
            "segments", points (distance, entry), distances ascending; the first of ``plus`` is 0, of ``minus`` 0 or
            1; between two points the floor of the line.
        bound: of "lists", the distance from which on entries are 0, which is how many both hold; None: their own ends.

    Raises:
        TypeError, ValueError: an argument is of the wrong type, out of range, or of another kind of tables.
    """

    kind: str = "exact"
    drop: int | None = None
    plus: tuple[int, ...] | Points | None = None
    minus: tuple[int, ...] | Points | None = None
    bound: int | None = None

    def __post_init__(self) -> None:
        check_choice("tables", self.kind, KINDS)
        for f in fields(self)[1:]:
            given = getattr(self, f.name) is not None
            if given and f.name not in _OWN.get(self.kind, ()):
                raise ValueError(f"{self.kind} tables take no {f.name}")
            if not given and f.name in _OWN.get(self.kind, ()) and f.name != "bound":
                raise ValueError(f"{self.kind} tables need {f.name}")
        if self.drop is not None:
            check_int("drop", self.drop, 1, 16)
        if self.kind == "lists":
            self._check_lists()
        if self.kind == "segments":
            for name, first in (("plus", (0,)), ("minus", (0, 1))):
                object.__setattr__(self, name, _points(name, getattr(self, name), first))

    def _check_lists(self) -> None:
        if self.bound is not None:
            check_int("bound", self.bound, 1, MOST_ENTRIES)
        for name in ("plus", "minus"):
            entries = integers(name, getattr(self, name)) or ()
            object.__setattr__(self, name, entries)
            if len(entries) > MOST_ENTRIES:
                raise ValueError(f"{name} may hold up to {MOST_ENTRIES:,} entries, got {len(entries):,}")
            if self.bound is not None and len(entries) != self.bound:
                than = "fewer" if len(entries) < self.bound else "more"
                raise ValueError(f"{name} holds {len(entries)} entries, {than} than its bound of {self.bound}")
            for d, entry in enumerate(entries):
                check_int(f"{name}[{d}]", entry, 0, LARGEST_ENTRY)

    @classmethod
    def coarse(cls, drop: int) -> LogTables:
        """Exact tables of which ``drop`` low bits of the distance are not looked at."""
        return cls("coarse", drop=drop)

    @classmethod
    def segments(cls, plus: Sequence[Sequence[int]], minus: Sequence[Sequence[int]]) -> LogTables:
        """Straight lines between integer points (distance, entry)."""
        return cls("segments", plus=_pairs("plus", plus), minus=_pairs("minus", minus))

    @classmethod
    def lists(cls, plus: Sequence[int], minus: Sequence[int], bound: int | None = None) -> LogTables:
        """Tables as they are given, from distance 0 on."""
        return cls("lists", plus=integers("plus", plus), minus=integers("minus", minus), bound=bound)

    @classmethod
    def of(cls, value: Any) -> LogTables:
        """The tables that a name ("exact", "shift", "coarse:5"), a mapping of fields or a pair of lists means.

        Raises:
            TypeError, ValueError: it means none.
        """
        if isinstance(value, LogTables):
            return value
        if isinstance(value, str):
            kind, colon, drop = value.partition(":")
            named = kind == "coarse" and drop.isdecimal() if colon else kind not in _OWN
            if not named:
                raise ValueError(f"tables must be a name, e.g. exact, shift or coarse:5, got {value!r}")
            if not colon:
                check_choice("tables", kind, ("exact", "shift", "coarse:DROP"))
            return cls(kind, drop=int(drop) if colon else None)
        if isinstance(value, Mapping):
            known = [f.name for f in fields(cls)]
            for key in value:
                check_choice("a key of tables", key, known)
            return cls(**value)
        if isinstance(value, Sequence) and len(value) == 2:
            return cls.lists(*value)
        raise TypeError(f"tables must be LogTables, a name or two lists, got {value!r}")

    @property
    def label(self) -> str:
        """How tables and captions call them."""
        if self.kind == "coarse":
            return f"coarse:{self.drop}"
        if self.plus is not None and self.minus is not None:
            given = "points" if self.kind == "segments" else "entries"
            return f"{len(self.plus)} and {len(self.minus)} {given}"
        return self.kind

    def __repr__(self) -> str:
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[1:] if getattr(self, f.name) is not None)
        return f"LogTables({', '.join([repr(self.kind), *shown])})"


def _pairs(name: str, points) -> Points:
    if isinstance(points, str) or not isinstance(points, Sequence):
        raise TypeError(f"{name} must be points (distance, entry), got {points!r}")
    found = [integers(f"a point of {name}", point) or () for point in points]
    for point in found:
        if len(point) != 2:
            raise ValueError(f"a point of {name} must be (distance, entry), got {point}")
    return tuple((d, entry) for d, entry in found)


def _points(name: str, points, first: tuple[int, ...]) -> Points:
    found = _pairs(name, points)
    if len(found) < 2 or found[0][0] not in first:
        raise ValueError(
            f"{name} must be two points or more, the first at distance {' or '.join(map(str, first))}, got {found}"
        )
    for d, entry in found:
        check_int(f"a distance of {name}", d, 0, MOST_ENTRIES - 1)
        check_int(f"an entry of {name}", entry, 0, LARGEST_ENTRY)
    if any(later[0] <= earlier[0] for earlier, later in pairwise(found)):
        raise ValueError(f"distances of {name} must ascend, got {[d for d, _ in found]}")
    return found
