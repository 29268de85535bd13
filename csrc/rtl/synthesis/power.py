"""Energy of a netlist of a Liberty file's cells, from how often its nets change.

A change of a net costs half its readers' capacitance times V^2, what the cell that drives it takes within (mean of its
tables of energy), and what its readers take that do not follow (flip-flops). The clock costs both of its edges at every
flip-flop. There are no wires, and no clock tree.
"""

from __future__ import annotations

import numpy as np

from csrc.rtl.synthesis.library import Cell, Library, Surface
from csrc.rtl.synthesis.netlist import Group, Netlist


class Power:
    """What changes cost in a netlist.

    Attributes:
        delay: of the cell that drives each net, ns, shape (nets,).
        change: energy of a change of each net, pJ, shape (nets,).
        clock: energy of a clock at each flip-flop, pJ, by the net that it drives.
        leakage: nW of each cell, by the net that it drives.
    """

    def __init__(self, netlist: Netlist, library: Library):
        self.netlist, cells = netlist, library.cells
        v2 = library.voltage**2
        load = np.zeros(netlist.nets)
        for group, cell in self._groups(cells):
            for pin, nets in zip(cell.inputs, group.inputs):
                np.add.at(load, nets, cell.pins[pin].capacitance)
        # Ports and clock come with the fastest edge that the tables know.
        fastest = min(s.slews[0] for _, cell in self._groups(cells) for arc in cell.arcs for s in arc.transition)
        slew, self.delay = np.full(netlist.nets, fastest), np.zeros(netlist.nets)
        self.change, self.clock = load * v2 / 2, np.zeros(netlist.nets)
        for group, cell in self._groups(cells):
            out, at = group.outputs, load[group.outputs]
            of = {pin: slew[nets] for pin, nets in zip(cell.inputs, group.inputs)}
            if cell.clock is not None:
                of[cell.clock] = np.full(len(out), fastest)
                pin = cell.pins[cell.clock]
                self.clock[out] = pin.capacitance * v2 + 2 * _mean(pin.energy, at, of[cell.clock])
            mean_slew = np.mean(list(of.values()), axis=0)
            for pin, nets in zip(cell.inputs, group.inputs):
                np.add.at(self.change, nets, _mean(cell.pins[pin].energy, at, of[pin]))
            self.change[out] += _mean(cell.energy, at, mean_slew)
            arcs = [arc for arc in cell.arcs if arc.input in of]
            self.delay[out] = np.mean([_mean(arc.delay, at, of[arc.input]) for arc in arcs], axis=0)
            slew[out] = np.mean([_mean(arc.transition, at, of[arc.input]) for arc in arcs], axis=0)
        self.leakage = netlist.per_cell(lambda cell: cell.leakage)

    def _groups(self, cells: dict[str, Cell]) -> list[tuple[Group, Cell]]:
        """All cells, each after those that it reads."""
        return [(group, cells[group.kind]) for group in (*self.netlist.registers, *self.netlist.gates)]

    def steps(self, longest: int) -> np.ndarray:
        """Delays in whole steps, two of which are a gate's median delay."""
        gates = np.concatenate([group.outputs for group in self.netlist.gates])
        step = np.median(self.delay[gates]) / 2
        return np.clip(np.rint(self.delay / step), 1, longest).astype(int)

    def by_block(self, switched: np.ndarray, ticks: np.ndarray, time: float) -> dict[str, float]:
        """Energy by block, pJ; "clock" for the flip-flops' clocks.

        Args:
            switched: changes of each net.
            ticks: clocks of the flip-flop that drives each net; what gates them is not counted.
            time: in which this happened, ns.
        """
        of_nets = switched * self.change + self.leakage * time * 1e-6  # nW ns
        return self.netlist.by_block(of_nets) | {"clock": float((self.clock * ticks).sum())}


def _mean(tables: list[Surface], load: np.ndarray, slew: np.ndarray) -> np.ndarray:
    """Of what the tables tell, rise and fall alike; 0 without any."""
    return np.mean([table(load, slew) for table in tables], axis=0) if tables else np.zeros(load.shape)
