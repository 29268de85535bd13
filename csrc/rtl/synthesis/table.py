"""The designs that area, activity and cells measure: the rows of their tables."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from csrc.rtl.design import (
    E3M0,
    E4M3,
    E5M10,
    ENTRIES,
    INT4,
    INT8,
    MICROARCHITECTURES,
    Design,
    Number,
    fixed_vector,
    float_vector,
    log_pe,
    pe,
)
from lns_sim import Datapath, LNSFormat, LogDatapath
from lns_sim.studies.energy.components import constants

# fJ of converting a product by LUT entries, as the paper has it.
_CONVERSION = {int(n): fj for n, fj in constants()["conversion"].value.items()}


@dataclass(frozen=True)
class Row:
    """A design, the formats of its moving and its stationary operand, and what a table of numbers tells about it."""

    design: Design
    moving: LNSFormat | Number
    held: LNSFormat | Number
    about: dict = field(hash=False)

    @property
    def name(self) -> str:
        return self.design.name

    @property
    def entries(self) -> int:
        """Of the collector, which take turns while one operand is held."""
        return dict(self.design.parameters)["ENTRIES"]

    @property
    def skewed(self) -> bool:
        """Does each lane take its operands a clock after the lane before?"""
        return bool(dict(self.design.parameters).get("SKEWED", 0))

    @property
    def warm_up(self) -> int:
        """Clocks until every entry has been written: what happens then is counted."""
        return self.entries * (2 if self.skewed else 1)


def rows() -> list[Row]:
    """Microarchitectures, the LUT, gamma and the accumulator each varied from the default; the rivals; some of them
    without handshake; PEs that add in the log domain.
    """
    base = Datapath()
    found = [_lns(_by_lut(m, n), replace(base, lut_entries=n), m) for m in MICROARCHITECTURES for n in _CONVERSION]
    found += [_lns(f"LNS rom, gamma {g}, LUT {g}", Datapath(LNSFormat(8, g))) for g in (4, 16)]
    found += [_lns(f"LNS rom, LUT 8, {b}-bit accumulator", Datapath(acc_bits=b)) for b in (16, 32)]
    found += [
        _fixed("INT4", INT4, INT4),
        _fixed("INT8", INT8, INT8),
        _fixed("FP4 x INT4", E3M0, INT4),
        _fixed("FP8", E4M3, E4M3),
        _fixed("FP8, 7 fraction bits", E4M3, E4M3, 7),
        _float("FP8, 11-bit float sums", E4M3, 11),
        _float("FP8, 24-bit float sums", E4M3, 24),
        _fixed("FP16, 7 fraction bits", E5M10, E5M10, 7),
    ]
    bare = "no handshake"
    return [
        *found,
        _lns(f"LNS rom, LUT 8, {bare}", base, handshake=False),
        _fixed(f"INT8, {bare}", INT8, INT8, handshake=False),
        _fixed(f"FP8, {bare}", E4M3, E4M3, handshake=False),
        _fixed(f"FP8, 7 fraction bits, {bare}", E4M3, E4M3, 7, handshake=False),
        *(
            _log(b, tables, order)
            for order in ("tree", "sequential")
            for b in (16, 12)
            for tables in ("exact", "shift")
        ),
    ]


def _by_lut(microarchitecture: str, lut_entries: int) -> str:
    return f"LNS {microarchitecture}, LUT {lut_entries}"


def papers_conversion() -> dict[str, tuple[str, float]]:
    """By name of the rows that vary the LUT: the like row with LUT 1, and the paper's energy of conversion to that
    one's.
    """
    return {
        _by_lut(m, n): (_by_lut(m, 1), fj / _CONVERSION[1]) for m in MICROARCHITECTURES for n, fj in _CONVERSION.items()
    }


def _lns(name: str, d: Datapath, microarchitecture: str = "rom", handshake: bool = True) -> Row:
    about = {
        "kind": "lns",
        "format": f"LNS{d.format.bits}",
        "microarchitecture": microarchitecture,
        "gamma": d.format.gamma,
        "lut_entries": d.lut_entries,
        "acc_bits": d.acc_bits,
        "lanes": d.vector_size,
        "handshake": handshake,
    }
    return Row(pe(d, microarchitecture, handshake, name), d.format, d.format, about)


def _log(acc_bits: int, tables: str, order: str) -> Row:
    """Sequential: as a column of an array, whose rows share what delays their operands, with an entry for each lane;
    without handshake, as its queue would hold more than the accumulators.
    """
    d = LogDatapath(acc_bits=acc_bits, tables=tables, vector_size=32, order=order)
    tree = order == "tree"
    about = {
        "kind": "log",
        "format": f"LNS{d.format.bits}",
        "gamma": d.format.gamma,
        "acc_bits": acc_bits,
        "acc_gamma": d.octave,
        "tables": tables,
        "order": order,
        "lanes": d.vector_size,
        "handshake": tree,
    }
    name = f"log {order}, {acc_bits} bits, {tables}{'' if tree else ', no handshake'}"
    return Row(log_pe(d, tree, name, *((ENTRIES, False) if tree else (d.vector_size, True))), d.format, d.format, about)


_NAMES = {INT4: "INT4", INT8: "INT8", E3M0: "E3M0", E4M3: "E4M3", E5M10: "E5M10"}


def _about(a: Number, b: Number, handshake: bool, **more) -> dict:
    kind = "float" if a.exponent else "int"
    format = _NAMES[a] if a == b else f"{_NAMES[a]} x {_NAMES[b]}"
    return {"kind": kind, "format": format, **more, "lanes": 32, "handshake": handshake}


def _fixed(name: str, a: Number, b: Number, fraction: int = 0, handshake: bool = True) -> Row:
    about = _about(a, b, handshake, sums="fixed point", fraction_bits=fraction, acc_bits=24)
    return Row(fixed_vector(name, a, b, fraction, handshake), a, b, about)


def _float(name: str, a: Number, significand: int) -> Row:
    about = _about(a, a, True, sums="floating point", significand_bits=significand)
    return Row(float_vector(name, a, a, significand), a, a, about)
