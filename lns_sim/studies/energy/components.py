"""The numbers in components.toml, and what every technology takes from them: prices of memories."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import tomlkit

# Status of a number: printed in its source, said to be printed there, fitted, computed, carried over, a choice of ours.
STATUSES = ("published", "recalled", "calibrated", "derived", "extrapolated", "ours")


@dataclass(frozen=True)
class Constant:
    """A number of components.toml: its unit, how it was come by, and where."""

    value: float | dict
    unit: str
    status: str
    source: str


@lru_cache
def constants() -> dict[str, Constant]:
    """All of components.toml, by name."""
    table = tomlkit.parse(Path(__file__).with_name("components.toml").read_text()).unwrap()
    return {name: Constant(**fields) for name, fields in table.items()}


def number(name: str) -> float:
    """One of the constants."""
    return constants()[name].value


@dataclass(frozen=True)
class Process:
    """Where energies are of.

    Attributes:
        name: how reports call it.
        node: its length in nm.
        voltage: its supply in V.
    """

    name: str
    node: float
    voltage: float

    def scaled(self, node: float, voltage: float) -> float:
        """This process' energies over those of another: capacitance by length, energy by the voltage squared."""
        return self.node / node * (self.voltage / voltage) ** 2

    def operations(self, name: str) -> float:
        """fJ of the constant ``name``'s float32 operations."""
        counts = constants()[name].value
        return sum(n * number(f"fp32_{kind}") for kind, n in counts.items()) * self._from_sources

    def sram(self, size: float) -> float:
        """fJ a byte, from a memory of so many bytes."""
        return number("sram") / 8 * math.sqrt(size / 8192) * self._from_sources

    @property
    def _from_sources(self) -> float:
        return self.scaled(number("sram_node"), number("sram_voltage"))


@dataclass(frozen=True)
class Memory:
    """What memories cost, in femtojoule a byte.

    Attributes:
        a, b: buffers A and B of the processing element.
        global_buffer: the memory that all processing elements share.
        dram: the memory outside.
        bandwidth: of it, in GB/s.
    """

    a: float
    b: float
    global_buffer: float
    dram: float
    bandwidth: float


def memory_of(process: Process, global_buffer: float | None = None) -> Memory:
    """SRAMs by their source scaled to the process, and HBM2; ``global_buffer`` in bytes, None: the constant's."""
    bank = number("buffer_a") / number("lanes")
    return Memory(
        process.sram(bank),
        process.sram(number("buffer_b")),
        process.sram(global_buffer or number("global_buffer")),
        number("dram"),
        number("dram_bandwidth"),
    )


@dataclass(frozen=True)
class Prices:
    """What things cost in one format and pass, in femtojoule.

    Attributes:
        bits: of an operand.
        vector_size: lanes of a dot product.
        slot: by component, a lane of a dot product for a cycle, with a product in it.
        accumulation: each accumulation of a vector; 0 where the slots have it.
        idle: a lane without a product, for a cycle; None: as one with.
        rests_on: what these numbers rest on, one line.
    """

    bits: int
    vector_size: int
    slot: dict[str, float] = field(default_factory=dict)
    accumulation: float = 0.0
    idle: float | None = None
    rests_on: str = ""
