"""Price files: energies, areas and periods of hardware on one process, measured or one's own (docs/energy.md)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import ParseError

from lns_sim.checks import check_bool, check_choice, check_int, check_number
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.log_datapath import LogDatapath
from lns_sim.recipes import PASSES
from lns_sim.studies.energy.components import Memory, Prices, Process, number
from lns_sim.studies.energy.technology import TRANSFORMER, NoSuchDesign, Technology, changes

KINDS = ("lns", "int", "float", "log")
_TABLES = ("process", "scale", "memory", "designs")
_PROCESS = ("name", "node_nm", "voltage", "wires", "source")
_SCALE = ("node_nm", "voltage")
_MEMORY = ("buffer_a", "buffer_b", "global_buffer", "dram", "dram_bandwidth")
_INTEGERS = ("gamma", "lut_entries", "acc_bits", "acc_gamma", "lanes", "fraction_bits", "significand_bits")
_SIZES = ("transistors", "luts", "area_um2", "period_ns")
_WORDS = ("microarchitecture", "sums", "tables", "order", "handshake")
_ENERGIES = ("fj", "fj_zero_delay", "fj_gated_clock")  # the first one counts
_REQUIRED = {
    "lns": ("gamma", "lut_entries", "acc_bits", "lanes"),
    "int": ("lanes",),
    "float": ("lanes",),
    "log": ("gamma", "acc_bits", "acc_gamma", "tables", "order", "lanes"),  # LNS operands, sums in the log domain
}
_SOURCES = (*PASSES, *(TRANSFORMER + name for name in PASSES), "random", "idle", "blocks")
_BETWEEN = ("acc_bits", "lanes")  # those that stand for a size, so that a value between two measured ones has a meaning
_FORMAT = re.compile(r"LNS(\d+)|INT(\d+)|E(\d+)M(\d+)")


@dataclass(frozen=True)
class Priced:
    """A design of a price file: its hardware for one vector of ``lanes`` products a clock.

    Attributes:
        name, kind: as in the file.
        bits: of an operand, the wider one.
        lanes: of the vector.
        gamma, lut_entries, acc_bits, acc_gamma: of a design of LNS, None where it has none.
        words: its parameters that are no numbers.
        fj: femtojoule a product by tensors, and of an idle lane.
        blocks: the mean of the passes by block.
        area: in square micrometre, None where not given.
        period: the shortest, in ns, None where not given.
    """

    name: str
    kind: str
    bits: int
    lanes: int
    gamma: int | None
    lut_entries: int | None
    acc_bits: int | None
    acc_gamma: int | None
    words: dict[str, Any]
    fj: dict[str, float]
    blocks: dict[str, float]
    area: float | None
    period: float | None

    def prices(self, tensors: str, rests_on: str) -> Prices:
        """A transformer's are the passes' where the file has none. Blocks have the same shares in all."""
        total = self.fj.get(tensors, self.fj[tensors.removeprefix(TRANSFORMER)])
        share = total / math.fsum(self.blocks.values())
        slot = {block: fj * share for block, fj in self.blocks.items()}
        return Prices(self.bits, self.lanes, slot, idle=self.fj["idle"], rests_on=rests_on)

    def scaled(self, energy: float, area: float) -> Priced:
        """On another process; how fast it is there is not known."""
        fj, blocks = ({k: v * energy for k, v in part.items()} for part in (self.fj, self.blocks))
        return replace(self, fj=fj, blocks=blocks, area=self.area and self.area * area, period=None)


class PriceFile(Technology):
    """Prices in a file.

    Args:
        path: of a TOML file.
        name: how reports call it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no price file; the message names what is wrong in it.
    """

    def __init__(self, path: Path, name: str):
        self.name = name
        try:
            table = tomlkit.parse(path.read_text()).unwrap()
        except (ParseError, UnicodeDecodeError) as error:
            raise ValueError(f"{name} is no TOML file: {error}") from None
        try:
            self._read(table)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is no price file: {error}") from None

    def _read(self, table: dict[str, Any]) -> None:
        _only("the file", table, _TABLES, ("process", "designs"))
        made = _only("process", table["process"], _PROCESS, ("name", "node_nm", "voltage"))
        self.process = _process(made["name"], made)
        self.wires = made.get("wires", True)
        check_bool("process.wires", self.wires)
        self._designs = [_design(name, d) for name, d in _only("designs", table["designs"], None).items()]
        if "scale" in table:
            own, to = self.process, _only("scale", table["scale"], _SCALE, _SCALE)
            self.process = _process(f"{own.name} scaled to {to['node_nm']} nm", to)
            factor = self.process.scaled(own.node, own.voltage)
            self._designs = [d.scaled(factor, (self.process.node / own.node) ** 2) for d in self._designs]
        self.areas = any(d.area is not None for d in self._designs)
        self._memory = _only("memory", table.get("memory", {}), _MEMORY)
        for key, value in self._memory.items():
            check_number(f"memory.{key}", value, 0.0, low_open=True)

    def lns(self, datapath: AnyDatapath, tensors: str, bits: int | None = None) -> Prices:
        design = self._find(datapath)
        prices = design.prices(tensors, f"{self._stands} {design.name}")
        return prices if bits is None else replace(prices, bits=bits)

    def others(self, tensors: str) -> dict[str, Prices]:
        """All designs of other operands, in the shell of the file's first LNS design: with its handshake or without."""
        shell = next((d.words.get("handshake") for d in self._designs if d.kind == "lns"), None)
        rivals = [d for d in self._designs if d.kind in ("int", "float")]
        found = [d for d in rivals if shell in (None, d.words.get("handshake", shell))]
        return {d.name: d.prices(tensors, f"{self._stands} {d.name}") for d in found}

    def memory(self, global_buffer: float | None = None) -> Memory:
        own, known = super().memory(global_buffer), self._memory
        shared = known.get("global_buffer")
        if shared is not None:  # given for the usual size
            shared *= math.sqrt((global_buffer or number("global_buffer")) / number("global_buffer"))
        return Memory(
            known.get("buffer_a", own.a),
            known.get("buffer_b", own.b),
            shared or own.global_buffer,
            known.get("dram", own.dram),
            known.get("dram_bandwidth", own.bandwidth),
        )

    def common(self) -> dict[str, str]:
        found = super().common()
        if self._memory:
            found["memories"] = f"given: {', '.join(self._memory)}; the rest: {found['memories']}"
        if any(TRANSFORMER in source for d in self._designs for source in d.fj):
            found["activity"] = "convolutions as on a CNN's tensors, other products as on a transformer's"
        return found

    def clock(self, datapath: AnyDatapath) -> float | None:
        period = self._find(datapath).period
        return period and 1 / period

    def area(self, datapath: AnyDatapath) -> float:
        design = self._find(datapath)
        if design.area is None:
            raise ValueError(f"{self.name} gives no area of {design.name}")
        return design.area

    @property
    def _stands(self) -> str:
        word = "measured" if self.name == "measured" else "given"
        return f"{word} on {self.process.name}{'' if self.wires else ', without wires'}:"

    def _find(self, d: AnyDatapath) -> Priced:
        """The first design with a datapath's parameters, or of linear ones one between two that differ in one only."""
        return self._find_log(d) if isinstance(d, LogDatapath) else self._find_linear(d)

    def _find_log(self, d: LogDatapath) -> Priced:
        designs = [x for x in self._designs if x.kind == "log"]
        known = f"it has {'; '.join(x.name for x in designs)}" if designs else "it has none that adds logarithms"
        usual = LogDatapath(d.format, d.acc_bits, d.octave, tables=d.tables, vector_size=d.vector_size, order=d.order)
        if d.encode() != usual.encode() or d.tables.plus is not None:
            raise NoSuchDesign(
                f"{self.name} has log-domain designs of named tables, the usual offset and underflow only, not of "
                f"{d.label}; {known}"
            )
        wanted = dict(gamma=d.format.gamma, acc_bits=d.acc_bits, acc_gamma=d.octave, bits=d.format.bits)
        words = dict(tables=d.tables.label, order=d.order)
        fits = [
            x
            for x in designs
            if all(getattr(x, key) == value for key, value in wanted.items())
            and all(x.words[key] == value for key, value in words.items())
        ]
        for x in fits:
            if x.lanes == d.vector_size:
                return x
        asked = ", ".join(f"{key} {value}" for key, value in {**wanted, **words, "lanes": d.vector_size}.items())
        lanes = f"; vector_size = {fits[0].lanes} is {fits[0].name}" if fits else ""
        raise NoSuchDesign(f"{self.name} has no log-domain design with {asked}{lanes or f'; {known}'}")

    def _find_linear(self, d: Datapath) -> Priced:
        usual = Datapath(d.format, d.vector_size, d.lut_entries, acc_bits=d.acc_bits)
        if changes(d) != changes(usual):
            odd = ", ".join(x for x in changes(d) if x not in changes(usual))
            raise NoSuchDesign(f"{self.name} has no LNS design with {odd}")
        wanted = dict(
            gamma=d.format.gamma,
            lut_entries=d.lut_entries,
            acc_bits=d.acc_bits,
            lanes=d.vector_size,
            bits=d.format.bits,
        )
        designs = [x for x in self._designs if x.kind == "lns"]
        for x in designs:
            if all(getattr(x, key) == value for key, value in wanted.items()):
                return x
        for key in _BETWEEN:
            same = [x for x in designs if all(getattr(x, k) == v for k, v in wanted.items() if k != key)]
            same = [x for x in same if x.words == same[0].words]
            below = max((x for x in same if getattr(x, key) < wanted[key]), key=lambda x: getattr(x, key), default=None)
            above = min((x for x in same if getattr(x, key) > wanted[key]), key=lambda x: getattr(x, key), default=None)
            if below and above:
                return _between(below, above, key, wanted[key])
        asked = ", ".join(f"{key} {value}" for key, value in wanted.items())
        raise NoSuchDesign(
            f"{self.name} has no LNS design with {asked}, nor two between which it lies; it has "
            f"{', '.join(x.name for x in designs) or 'none'}"
        )


def _between(below: Priced, above: Priced, key: str, value: int) -> Priced:
    """What lies on the line through two designs."""
    low, high = getattr(below, key), getattr(above, key)
    t = (value - low) / (high - low)

    def line(x, y):
        return None if x is None or y is None else x + t * (y - x)

    fj, blocks = (
        {k: line(part.get(k, 0.0), other.get(k, 0.0)) for k in {**part, **other}}
        for part, other in ((below.fj, above.fj), (below.blocks, above.blocks))
    )
    name = f"interpolated by {key} between {below.name} and {above.name}"
    area, period = line(below.area, above.area), line(below.period, above.period)
    return replace(below, name=name, fj=fj, blocks=blocks, area=area, period=period, **{key: value})


def _only(where: str, table: Any, allowed: tuple[str, ...] | None, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table that has all required keys, and none but those allowed (None: any)."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table")
    for key in table if allowed is not None else ():
        check_choice(f"a key of {where}", key, allowed)
    for key in required:
        if key not in table:
            raise ValueError(f"{where} lacks {key}")
    return table


def _process(name: str, table: dict[str, Any]) -> Process:
    for key in _SCALE:
        check_number(key, table[key], 0.0, low_open=True)
    return Process(name, table["node_nm"], table["voltage"])


def _bits(where: str, text: Any) -> int:
    """Bits of a format such as "LNS8", "INT4", "E4M3" (with a sign), or of the wider one of "E3M0 x INT4"."""
    found = [_FORMAT.fullmatch(part) for part in str(text).split(" x ")]
    if len(found) > 2 or None in found:
        raise ValueError(f"{where}.format is such as LNS8, INT4, E4M3 or E3M0 x INT4, got {text!r}")
    return max(sum(map(int, filter(None, m.groups()))) + (m.group(3) is not None) for m in found if m)


def _design(name: str, table: Any) -> Priced:
    where = f"designs.{name}"
    _only(where, table, ("kind", "format", *_INTEGERS, *_SIZES, *_WORDS, *_ENERGIES), ("kind", "format", "fj"))
    check_choice(f"{where}.kind", table["kind"], KINDS)
    _only(where, table, None, _REQUIRED[table["kind"]])
    for key in _INTEGERS:
        if key in table:
            check_int(f"{where}.{key}", table[key], int(key != "fraction_bits"), None)
    for key in _SIZES:
        if key in table:
            check_number(f"{where}.{key}", table[key], 0.0, low_open=True)
    fj = dict(_only(f"{where}.fj", table["fj"], _SOURCES, (*PASSES, "idle")))
    blocks = _only(f"{where}.fj.blocks", fj.pop("blocks", {}), None)
    for key, value in {**fj, **blocks}.items():
        check_number(f"{where}.fj of {key}", value, 0.0)
    mean = math.fsum(fj[p] for p in PASSES) / len(PASSES)
    if mean == 0 or (blocks and not math.isclose(math.fsum(blocks.values()), mean, rel_tol=0.02)):
        raise ValueError(f"{where}.fj: the blocks must sum to the mean of the passes, {mean:g}, which is above 0")
    return Priced(
        name=name,
        kind=table["kind"],
        bits=_bits(where, table["format"]),
        lanes=table["lanes"],
        gamma=table.get("gamma"),
        lut_entries=table.get("lut_entries"),
        acc_bits=table.get("acc_bits"),
        acc_gamma=table.get("acc_gamma"),
        words={key: table[key] for key in _WORDS if key in table},
        fj=fj,
        blocks=blocks or {"products": mean},
        area=table.get("area_um2"),
        period=table.get("period_ns"),
    )
