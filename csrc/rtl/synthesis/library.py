"""Cells of a Liberty file: what they compute, and their area, capacitance, delay and energy.

What is read is what static CMOS cells of one output have in common in Liberty's tables of delay and energy ("non-linear
delay model"); cells that a netlist of :mod:`csrc.rtl.synthesis.yosys` does not hold are read and never used. Units are
those of :class:`Library`, whatever the file's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from csrc.rtl.synthesis.liberty import Group, boolean, multiple, parse


class Surface:
    """A table over load and input transition time, linear between its points and beyond them."""

    def __init__(self, values: np.ndarray, loads: np.ndarray, slews: np.ndarray):
        self.values, self.loads, self.slews = values, loads, slews  # (loads, slews), pF, ns

    def __call__(self, load: np.ndarray, slew: np.ndarray) -> np.ndarray:
        i, x = _place(self.loads, load)
        j, y = _place(self.slews, slew)
        v = self.values
        below = v[i, j] * (1 - y) + v[i, np.minimum(j + 1, len(self.slews) - 1)] * y
        i = np.minimum(i + 1, len(self.loads) - 1)
        above = v[i, j] * (1 - y) + v[i, np.minimum(j + 1, len(self.slews) - 1)] * y
        return below * (1 - x) + above * x


def _place(axis: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of an axis, and how far along it."""
    at = np.asarray(at, float)
    if len(axis) == 1:
        return np.zeros(at.shape, int), np.zeros(at.shape)
    i = np.clip(np.searchsorted(axis, at) - 1, 0, len(axis) - 2)
    return i, (at - axis[i]) / (axis[i + 1] - axis[i])


@dataclass
class Pin:
    """An input: its capacitance, pF, and the energy within the cell of a change that its output does not follow, pJ."""

    capacitance: float
    energy: list[Surface]


@dataclass
class Arc:
    """From an input to the output, mean of rise and fall in :meth:`Cell.delay` and its like: tables of delay and of the
    output's transition time, ns."""

    input: str
    delay: list[Surface]
    transition: list[Surface]


@dataclass
class Cell:
    """A gate or flip-flop of one output.

    Attributes:
        name: in the file.
        area: in the file's unit (um2 as a rule).
        leakage: nW.
        pins: inputs.
        output: the output's name.
        function: of arrays of bits, in the order of ``inputs``; of a flip-flop None.
        inputs: the inputs that the function takes, or a flip-flop's data.
        clock: a flip-flop's clock.
        arcs: from inputs (or the clock) to the output.
        energy: within the cell of a change of the output, pJ: tables by input and edge.
    """

    name: str
    area: float
    leakage: float
    pins: dict[str, Pin]
    output: str
    function: Callable[..., np.ndarray] | None
    inputs: tuple[str, ...]
    clock: str | None
    arcs: list[Arc]
    energy: list[Surface]


class Library:
    """Cells by name, from a Liberty file; pF, ns, pJ, nW.

    Raises:
        ValueError: the file is no Liberty file, or lacks what is needed.
    """

    def __init__(self, path: str | Path):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        self.path, self._file = Path(path), parse(text)
        self.name = self._file.arguments[0]
        self.voltage = float(self._file.get("nom_voltage"))
        self._ns = multiple(self._file.get("time_unit", "1ns"), "s", 1e-9)
        self._nw = multiple(self._file.get("leakage_power_unit", "1nW"), "W", 1e-9)
        number, unit = self._file.attributes.get("capacitive_load_unit", ["1", "pf"])
        self._pf = float(number) * {"pf": 1.0, "ff": 1e-3}[unit.lower()]
        self._pj = self._pf * multiple(self._file.get("voltage_unit", "1V"), "V", 1.0) ** 2
        self._axes = {
            g.arguments[0]: g for kind in ("lu_table_template", "power_lut_template") for g in self._file.all(kind)
        }

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Gates of one output, and flip-flops that take their data as it comes at the rising edge."""
        found = (self._cell(group) for group in self._file.all("cell"))
        return {cell.name: cell for cell in found if cell is not None}

    def _cell(self, cell: Group) -> Cell | None:
        directions = {p.arguments[0]: p.get("direction", "internal") for p in cell.all("pin")}
        flip_flop = cell.all("ff")
        state = flip_flop[0].arguments[0] if flip_flop else None
        outputs = [
            p
            for p in cell.all("pin")
            if p.get("direction", "") == "output" and (state is None or p.get("function", "") == state)
        ]
        if len(outputs) != 1 or "function" not in outputs[0].attributes or cell.all("latch"):
            return None
        inputs, function, clock = tuple(sorted(p for p, d in directions.items() if d == "input")), None, None
        if state is None:
            used = set(re.findall(r"[A-Za-z_]\w*", outputs[0].get("function")))
            if used - set(inputs):
                return None
            inputs = tuple(p for p in inputs if p in used)
            function = boolean(outputs[0].get("function"), inputs)
        else:
            data, clock = flip_flop[0].get("next_state"), flip_flop[0].get("clocked_on")
            if set(inputs) != {data, clock}:
                return None
            inputs = (data,)
        return Cell(
            name=cell.arguments[0],
            area=float(cell.get("area", "0")),
            leakage=float(cell.get("cell_leakage_power", "0")) * self._nw,
            pins={p.arguments[0]: self._pin(p) for p in cell.all("pin") if p.get("direction", "") == "input"},
            output=outputs[0].arguments[0],
            function=function,
            inputs=inputs,
            clock=clock,
            arcs=list(self._arcs(outputs[0])),
            energy=self._energy(outputs[0]),
        )

    def _pin(self, pin: Group) -> Pin:
        return Pin(float(pin.get("capacitance", "0")) * self._pf, self._energy(pin))

    def _arcs(self, output: Group) -> Iterator[Arc]:
        for timing in output.all("timing"):
            if timing.get("timing_type", "combinational") in ("combinational", "rising_edge"):
                delay, transition = (
                    [self._surface(g, self._ns) for edge in edges for g in timing.all(edge)]
                    for edges in (("cell_rise", "cell_fall"), ("rise_transition", "fall_transition"))
                )
                if delay and transition:
                    yield Arc(timing.get("related_pin"), delay, transition)

    def _energy(self, pin: Group) -> list[Surface]:
        groups = [g for power in pin.all("internal_power") for g in power.groups if g.name.endswith("power")]
        return [self._surface(g, self._pj) for g in groups]

    def _surface(self, table: Group, unit: float) -> Surface:
        """A table of one or two variables, load first; a `power` table stands for both edges."""
        rows = [[float(x) for x in row.replace(",", " ").split()] for row in table.attributes["values"]]
        values = np.array(rows) * unit
        if table.arguments == ["scalar"] or values.size == 1:
            return Surface(values.reshape(1, 1), np.zeros(1), np.zeros(1))
        template = self._axes[table.arguments[0]]
        axes = []
        for n in ("1", "2"):
            if f"variable_{n}" in template.attributes:
                index = table.attributes.get(f"index_{n}") or template.attributes[f"index_{n}"]
                numbers = np.array([float(x) for part in index for x in part.replace(",", " ").split()])
                axes.append((template.get(f"variable_{n}"), numbers))
        values = values.reshape([len(numbers) for _, numbers in axes])
        if len(axes) == 1:  # the other has one point
            slew_only = "transition" in axes[0][0]
            axes.insert(0 if slew_only else 1, ("capacitance" if slew_only else "transition", np.zeros(1)))
            values = values[None] if slew_only else values[:, None]
        if "transition" in axes[0][0]:
            axes, values = axes[::-1], values.T
        return Surface(values, axes[0][1] * self._pf, axes[1][1] * self._ns)
