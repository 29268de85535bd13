"""A netlist simulated with delays: all changes of a net are counted, those that are taken back within a clock, too.

Time goes in steps. A gate's output follows its function after the gate's delay; what lasts shorter is swallowed
(inertial delay, as Verilog's gates have). Ports and registers change at the clock's edge.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from csrc.rtl.synthesis.netlist import Netlist

_PLANES = 4  # bits of a gate's counter of steps
LONGEST = (1 << _PLANES) - 1  # delay in steps


def run(netlist: Netlist, inputs: dict[str, np.ndarray], delays: np.ndarray, skip: int = 0) -> np.ndarray:
    """How often each net changes, by 64 streams: int64 of shape (nets, streams / 64).

    Args:
        netlist: what is simulated; arguments ``inputs`` and ``skip`` as of :meth:`Netlist.run`.
        delays: steps of the gate that drives each net, 1 to ``LONGEST``.
    """
    clocks, streams = next(iter(inputs.values())).shape[:2]
    simulation = _Simulation(netlist, delays, streams)
    ports = netlist.packed(inputs)
    for clock in range(clocks):
        simulation.clock([(nets, bits[clock]) for nets, bits in ports], count=clock > skip)
    return simulation.switched


class _Simulation:
    """Gates are numbered kind by kind. A bit of a gate that differs from its function's value is counted up each step,
    and changes when the count reaches the gate's delay; it is reset when they agree again.
    """

    def __init__(self, netlist: Netlist, delays: np.ndarray, streams: int):
        self.netlist, self.value = netlist, netlist.start(streams)
        self.switched = np.zeros(self.value.shape, np.int64)
        kinds = defaultdict(list)
        for group in netlist.gates:
            kinds[group.kind].append(group)
        self.outputs = np.concatenate([g.outputs for groups in kinds.values() for g in groups])
        self.kinds, start = [], 0
        for kind, groups in kinds.items():
            pins = np.concatenate([g.inputs for g in groups], axis=1)
            self.kinds.append((netlist.kinds[kind].function, pins, start, start + pins.shape[1]))
            start += pins.shape[1]
        # Readers of each net: gates first[net] to first[net + 1] of `readers`.
        nets = np.concatenate([pins.ravel() for _, pins, _, _ in self.kinds])
        gates = np.concatenate([np.tile(np.arange(a, b), len(pins)) for _, pins, a, b in self.kinds])
        order = np.argsort(nets, kind="stable")
        self.readers, self.first = gates[order], np.searchsorted(nets[order], np.arange(netlist.nets + 1))
        shape = (start, streams // 64)
        delay = delays[self.outputs]
        assert delay.min() >= 1 and delay.max() <= LONGEST
        # A counter's plane agrees with the delay's bit where its exclusive or with this is one.
        self.agree = [np.where(delay >> i & 1, np.uint64(0), ~np.uint64(0))[:, None] for i in range(_PLANES)]
        self.count = [np.zeros(shape, np.uint64) for _ in range(_PLANES)]
        self.differs = np.zeros(shape, np.uint64)
        self.target = np.zeros(shape, np.uint64)
        self.waiting = np.zeros(start, bool)
        self.started = False
        self._read(np.arange(start))

    def _read(self, gates: np.ndarray) -> None:
        """The functions of gates (ascending), and where their outputs differ."""
        bounds = np.searchsorted(gates, [a for _, _, a, _ in self.kinds] + [len(self.outputs)])
        for (function, pins, start, _), low, high in zip(self.kinds, bounds, bounds[1:]):
            if low < high:
                own = pins[:, gates[low:high] - start]
                self.target[gates[low:high]] = function(*(self.value[pin] for pin in own))
        self.differs[gates] = self.target[gates] ^ self.value[self.outputs[gates]]
        self.waiting[gates] = True

    def _wake(self, nets: np.ndarray) -> np.ndarray:
        """Gates that read any of the nets, ascending."""
        first, count = self.first[nets], self.first[nets + 1] - self.first[nets]
        at = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(count.sum())
        return np.unique(self.readers[at])

    def clock(self, ports, count: bool) -> None:
        """An edge, and all that follows from it."""
        registers = self.netlist.registers if self.started else []  # before the first edge they are 0
        sources, self.started = [(g.outputs, self.value[g.inputs[0]]) for g in registers], True
        for nets, bits in (*sources, *ports):
            nets = np.asarray(nets)
            changed = self.value[nets] ^ bits
            self.value[nets] = bits
            self._tally(nets, changed, count)
            self._read(self._wake(nets[changed.any(1)]))
        while len(gates := np.flatnonzero(self.waiting)):
            differs = self.differs[gates]
            carry, flip = differs, differs
            for plane, agree in zip(self.count, self.agree):
                old = plane[gates]
                new = (old ^ carry) & differs
                carry = carry & old
                flip = flip & (new ^ agree[gates])
                plane[gates] = new
            moved = flip.any(1)
            at, flip = gates[moved], flip[moved]
            for plane in self.count:
                plane[at] &= ~flip
            self.differs[at] ^= flip
            self.waiting[gates] = self.differs[gates].any(1)
            nets = self.outputs[at]
            self.value[nets] ^= flip
            self._tally(nets, flip, count)
            if len(nets):
                self._read(self._wake(nets))

    def _tally(self, nets: np.ndarray, changed: np.ndarray, count: bool) -> None:
        if count:
            self.switched[nets] += np.bitwise_count(changed)
