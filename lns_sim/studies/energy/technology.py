"""Technologies: where the prices of an energy come from. One of them prices everything; they are never mixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, replace

from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.log_datapath import LogDatapath
from lns_sim.studies.energy.components import Memory, Prices, Process, memory_of, number
from lns_sim.watching.passes import Pass


class NoSuchDesign(ValueError):
    """A technology has no prices of a datapath."""


class Technology(ABC):
    """Prices of lanes, accumulation and memories.

    Attributes:
        name: "paper", "measured" or a file's name.
        process: where its energies are of.
        areas: does it give areas?
    """

    name: str
    process: Process
    areas: bool

    @abstractmethod
    def lns(self, datapath: AnyDatapath, tensors: str, bits: int | None = None) -> Prices:
        """Prices of LNS products on some tensors (:func:`tensors_of`), of so many bits (the datapath's, if None).

        Raises:
            NoSuchDesign: the technology has no such datapath.
        """

    @abstractmethod
    def others(self, tensors: str) -> dict[str, Prices]:
        """Prices of products on the same tensors in other formats, by name."""

    def memory(self, global_buffer: float | None = None) -> Memory:
        """Prices of memories, with a global buffer of so many bytes (the default's, if None)."""
        return memory_of(self.process, global_buffer)

    def common(self) -> dict[str, str]:
        """What the prices of all formats rest on, one line each."""
        p, node, voltage = self.process, number("sram_node"), number("sram_voltage")
        sram = (
            f"SRAM of {node:g} nm at {voltage:g} V (Horowitz, ISSCC 2014) scaled to {p.node:g} nm and {p.voltage:g} V, "
            "by the square root of its size; DRAM: HBM2 (O'Connor et al., MICRO 2017)"
        )
        return {"memories": sram}

    @abstractmethod
    def clock(self, datapath: AnyDatapath) -> float | None:
        """The highest clock in GHz; None where it is not known.

        Raises:
            NoSuchDesign: the technology has no such datapath.
        """

    @abstractmethod
    def area(self, datapath: AnyDatapath) -> float:
        """Square micrometre of one vector's hardware (lanes, adders, accumulators; no buffers).

        Raises:
            ValueError: it is not known.
        """

    def describe(self) -> dict[str, object]:
        """For artefacts."""
        p = self.process
        return {"name": self.name, "process": p.name, "node_nm": p.node, "voltage": p.voltage}


TRANSFORMER = "transformer_"


def tensors_of(p: Pass) -> str:
    """At whose activity a pass is priced: of a convolution its name, of other products "transformer_" and its name."""
    return p.name if p.kind == "convolution" else TRANSFORMER + p.name


# What a datapath is compared with: the same formats' hardware, whatever the datapath.
USUAL = Datapath()


def changes(datapath: AnyDatapath) -> list[str]:
    """How a datapath differs from the usual one, in words."""
    if isinstance(datapath, LogDatapath):
        return [datapath.label]
    words = {
        "vector_size": "vectors of {} lanes",
        "acc_bits": "{}-bit accumulators",
        "lut_entries": "{} LUT entries",
        "lut_bits": "{}-bit constants",
        "rounding": "alignment by {}",
        "overflow": "overflow by {}",
    }
    format, found = datapath.format, []
    if format != USUAL.format:
        found.append(f"{format.bits} bits at gamma {format.gamma}")
    for name in (f.name for f in fields(Datapath)):
        if name not in ("format", "acc_lsb", "headroom_bits") and getattr(datapath, name) != getattr(USUAL, name):
            found.append(words.get(name, f"{name} {{}}").format(getattr(datapath, name)))
    if datapath.lsb != replace(USUAL, format=format, lut_entries=None, acc_bits=datapath.acc_bits).lsb:
        found.append(f"a unit of 2^{datapath.lsb}")
    return found
