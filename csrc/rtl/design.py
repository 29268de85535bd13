"""The designs of csrc/rtl: their source files and parameters, for simulation and synthesis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lns_sim import AccumulatorConverter, Datapath

RTL = Path(__file__).parent
ENTRIES = 16  # accumulators of a collector

_COMMON = ("common/carry_save.sv", "common/adder_tree.sv", "common/register_file.sv", "common/collector.sv")
_PE = (
    "pe/lns_pkg.sv",
    "common/require.sv",
    *_COMMON,
    "common/queue.sv",
    "pe/lns_product.sv",
    "pe/lns_term.sv",
    "pe/lns_rom.sv",
    "pe/lns_bins.sv",
    "pe/lns_check.sv",
    "pe/lns_pe.sv",
)
_POST_PROCESSING = ("pe/lns_convert.sv", "pe/lns_datapath.sv")


@dataclass(frozen=True)
class Design:
    """One design: its name in tables, its top module, sources (below a folder as csrc/rtl) and parameters."""

    name: str
    top: str
    sources: tuple[str, ...]
    parameters: tuple[tuple[str, int], ...]

    def paths(self, root: Path = RTL) -> list[str]:
        """The source files, in the order in which tools read them."""
        return [str(root / source) for source in self.sources]


MICROARCHITECTURES = ("rom", "bins")


def pe(d: Datapath, microarchitecture: str = "rom", handshake: bool = True, name: str = "LNS") -> Design:
    """The PE of a datapath; without handshake it cannot be made to wait.

    Raises:
        ValueError: the RTL cannot do what the datapath asks for.
    """
    return Design(name, "lns_pe", _PE, (*_parameters(d, microarchitecture), ("HANDSHAKE", int(handshake))))


def datapath(d: Datapath, microarchitecture: str = "rom", converter: AccumulatorConverter | None = None) -> Design:
    """The PE of a datapath with its post-processing, the default converter's or a given one's; raises as :func:`pe`."""
    own = AccumulatorConverter(d.format)
    converter = converter or own
    if replace(converter, underflow=own.underflow) != own:
        raise ValueError(
            "the RTL's converter has underflow alone as a choice: its other arguments must be the defaults"
        )
    scale_bits = (abs(d.lsb) + 3 * 127).bit_length() + 1  # acc_lsb + k_a + k_b - k_out, signed
    parameters = (
        *_parameters(d, microarchitecture),
        ("SCALE_BITS", scale_bits),
        ("FLUSH", int(converter.underflow == "flush")),
    )
    return Design("LNS", "lns_datapath", (*_PE, *_POST_PROCESSING), parameters)


def _parameters(d: Datapath, microarchitecture: str) -> tuple[tuple[str, int], ...]:
    if d.departures:
        raise ValueError(f"the RTL is the paper's PE and has no {', '.join(d.departures)}")
    if d.format.gamma > 128:
        raise ValueError(f"the RTL's gamma goes up to 128, got {d.format.gamma}")
    found = {
        "BITS": d.format.bits,
        "GAMMA": d.format.gamma,
        "LANES": d.vector_size,
        "LUT_ENTRIES": d.lut_entries,
        "LUT_BITS": d.lut_bits,
        "ACC_BITS": d.acc_bits,
        "ACC_LSB": d.lsb,
        "NEAREST": int(d.rounding == "nearest"),
        "WRAP": int(d.overflow == "wrap"),
        "ENTRIES": ENTRIES,
        "ROM": 1 - MICROARCHITECTURES.index(microarchitecture),
    }
    return tuple(found.items())


def int8_vector(lanes: int = 32, acc_bits: int = 24) -> Design:
    """Products of 8-bit integers, with the PE's lanes and accumulators."""
    return _rival("INT8", "int8_vector", LANES=lanes, ACC_BITS=acc_bits)


def fp8_vector(lanes: int = 32, acc_bits: int = 24, drop: int = 18) -> Design:
    """Products of E4M3 numbers, cut by default at the same distance from the largest one as the PE's."""
    return _rival("FP8 (E4M3)", "fp8_vector", LANES=lanes, ACC_BITS=acc_bits, DROP=drop)


def _rival(name: str, top: str, **parameters: int) -> Design:
    return Design(name, top, (*_COMMON, "rivals/sum_vector.sv", f"rivals/{top}.sv"), tuple(parameters.items()))
