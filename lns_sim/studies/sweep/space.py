"""What a sweep varies: names and values, and the recipe that a choice of values makes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from lns_sim.checks import check_choice
from lns_sim.datapath import ALIGNMENTS, BINS, OVERFLOWS, Datapath
from lns_sim.format import LNSFormat
from lns_sim.recipes import PASSES, Recipe

Value = int | str
Space = dict[str, list[Value]]
Point = dict[str, Value]

_FIELDS = (
    "vector_size",
    "lut_entries",
    "lut_bits",
    "acc_bits",
    "acc_lsb",
    "headroom_bits",
    "rounding",
    "overflow",
    "bin_bits",
    "bin_overflow",
    "bins",
)
_WORDS = {"rounding": ALIGNMENTS, "overflow": OVERFLOWS, "bin_overflow": OVERFLOWS, "bins": BINS}
_TENSORS = ("activation", "weight", "error", "gradient")
KEYS = (
    "bits",
    "gamma",
    "update_bits",
    *(f"{tensor}.bits" for tensor in _TENSORS),
    *_FIELDS,
    *(f"{name}.{field}" for name in PASSES for field in _FIELDS),
)


def parse(texts: list[str]) -> Space:
    """``["acc_bits=16:24:4", "forward.lut_entries=1,2,8"]``: values in a list, or from:to[:step], both ends included.

    Raises:
        ValueError: an unknown key (the message names the nearest), one given twice, or values that are no such list.
    """
    space: Space = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise ValueError(f"a dimension is NAME=VALUES, as in acc_bits=16:24:4 or lut_entries=1,2,8, got {text!r}")
        check_choice("a dimension", key, KEYS)
        if key in space:
            raise ValueError(f"{key} is given twice")
        space[key] = _values(key, values)
    if not space:
        raise ValueError("a sweep needs at least one dimension, e.g. acc_bits=16:24:4")
    return space


def _values(key: str, text: str) -> list[Value]:
    words = _WORDS.get(key.rpartition(".")[2])
    found: list[Value] = []
    for part in text.split(","):
        if words is not None:
            check_choice(key, part, words)
            found.append(part)
            continue
        try:
            ends = [int(n) for n in part.split(":")]
        except ValueError:
            raise ValueError(f"{key} takes integers, got {part!r}") from None
        if len(ends) > 3 or (len(ends) == 3 and ends[2] < 1) or (len(ends) > 1 and ends[1] < ends[0]):
            raise ValueError(f"{key}: a range is from:to or from:to:step, got {part!r}")
        found += range(ends[0], ends[1] + 1, ends[2] if len(ends) == 3 else 1) if len(ends) > 1 else ends
    return list(dict.fromkeys(found))


def points(space: Space) -> list[Point]:
    """All choices."""
    return [dict(zip(space, values)) for values in itertools.product(*space.values())]


def size(space: Space) -> int:
    """How many choices there are."""
    return math.prod(map(len, space.values()))


def recipe_of(point: Point, base: Recipe) -> Recipe:
    """The base recipe with a choice of values: a key without a pass or tensor holds for all of them.

    A datapath's format is the wider one of its operands'; the LUT has gamma entries where the base's has and no key
    says otherwise; the update format keeps the weight format's octaves.

    Raises:
        TypeError, ValueError: values that do not fit together.
    """

    def format_of(tensor: str, own: LNSFormat) -> LNSFormat:
        return LNSFormat(point.get(f"{tensor}.bits", point.get("bits", own.bits)), point.get("gamma", own.gamma))

    changes = {}
    for tensor in _TENSORS:
        own = getattr(base, tensor)
        if own is None:
            continue
        changes[tensor] = (
            format_of(tensor, own) if tensor == "weight" else replace(own, format=format_of(tensor, own.format))
        )
    if base.coded_weights and {"bits", "weight.bits", "gamma", "update_bits"} & point.keys():
        weight, bits = changes["weight"], point.get("update_bits", base.update.bits)
        if bits < weight.bits:
            raise ValueError(f"update_bits must be at least the weight's {weight.bits}, got {bits}")
        changes["update"] = LNSFormat(bits, weight.gamma << (bits - weight.bits))
    for name, operands in PASSES.items():
        own = getattr(base, name)
        if own is not None:
            formats = [changes[tensor] if tensor == "weight" else changes[tensor].format for tensor in operands]
            changes[name] = _datapath(own, name, max(formats, key=lambda f: f.bits), point)
    return replace(base, **changes)


def _datapath(own: Datapath, name: str, format: LNSFormat, point: Point) -> Datapath:
    fields = {field: point.get(f"{name}.{field}", point.get(field, getattr(own, field))) for field in _FIELDS}
    if own.lut_entries == own.format.gamma and not {"lut_entries", f"{name}.lut_entries"} & point.keys():
        fields["lut_entries"] = None
    return replace(own, format=format, **fields)
