"""A synthesized design at gate level: simulated over many streams at once, counting how often each net switches.

Without delays a net switches at most once a clock; :mod:`csrc.rtl.synthesis.glitches` counts all its changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_BLOCKS = ("product", "term", "tree", "collector", "results")  # instances of yosys.BLOCKS
_ZERO, _ONE = 0, 1  # the nets of the constants


class Kind(Protocol):
    """What a netlist needs to know of a kind of cell: pins, and a function of its inputs' bits. A flip-flop has none;
    its one input is taken at the clock's rising edge.
    """

    inputs: tuple[str, ...]
    output: str
    function: Callable[..., np.ndarray] | None


@dataclass(frozen=True)
class Group:
    """Cells of one kind: their input nets, shape (pins, cells), and the nets that they drive."""

    kind: str
    inputs: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Activity:
    """What :meth:`Netlist.run` counted.

    Attributes:
        switched: how often each net changed, by 64 streams: int64 of shape (nets, streams / 64).
        written: likewise by net of a flip-flop's output in how many clocks its word changed, the word being what the
            RTL names.
        seen: the watched port's bits before each clock's edge.
    """

    switched: np.ndarray
    written: np.ndarray
    seen: np.ndarray | None


class Netlist:
    """A design's cells in the order in which they settle, its flip-flops, and the net of each port's bit.

    Args:
        module: of Yosys' JSON, flat.
        kinds: of the cells in it.

    Attributes:
        nets: how many there are.
        gates, registers: cells by kind, gates in the order in which they settle.
        loads: inputs that each net drives, shape (nets,).
        cells: gates and flip-flops.
        flip_flops: how many there are.
        depth: most gates between two registers.
    """

    def __init__(self, module: dict, kinds: Mapping[str, Kind]):
        self.kinds = kinds
        self.ports = {name: port["bits"] for name, port in module["ports"].items()}
        cells = [(cell["type"], cell["connections"], _block(name)) for name, cell in module["cells"].items()]
        bits = {b for port in self.ports.values() for b in port} | {
            b for _, c, _ in cells for pins in c.values() for b in pins
        }
        self._net = {"0": _ZERO, "1": _ONE, "x": _ZERO}
        for bit in sorted(b for b in bits if isinstance(b, int)):
            self._net[bit] = len(self._net) - 1  # "x" shares a net
        self.nets = max(self._net.values()) + 1
        self._block_of = ["registers"] * self.nets  # ports, too
        registers, gates = defaultdict(list), []
        for kind, pins, block in cells:
            if kind not in kinds:
                raise RuntimeError(f"a cell of an unknown kind: {kind}")
            inputs = [self._net[pins[pin][0]] for pin in kinds[kind].inputs]
            out = self._net[pins[kinds[kind].output][0]]
            if kinds[kind].function is None:
                registers[kind].append((inputs, out))
                block = block or "registers"
            else:
                gates.append((kind, inputs, out))
            self._block_of[out] = block
        self.registers = [_group(kind, found) for kind, found in sorted(registers.items())]
        self.gates = self._in_order(gates)
        self.cells, self.flip_flops = len(cells), sum(len(g.outputs) for g in self.registers)
        self.loads = np.zeros(self.nets, np.int64)
        for group in (*self.gates, *self.registers):
            np.add.at(self.loads, group.inputs, 1)
        self._words = self._by_word(module["netnames"])

    def _in_order(self, gates) -> list[Group]:
        """Gates of one kind whose inputs are all settled, group by group."""
        readers, missing, depth = defaultdict(list), [0] * len(gates), [0] * len(gates)
        driven = {out for _, _, out in gates}
        for i, (_, inputs, _) in enumerate(gates):
            for net in driven.intersection(inputs):
                readers[net].append(i)
                missing[i] += 1
        ready, settled = [i for i, n in enumerate(missing) if n == 0], 0
        groups = defaultdict(list)
        while ready:
            i = ready.pop()
            kind, inputs, out = gates[i]
            groups[depth[i], kind].append((inputs, out))
            settled += 1
            for j in readers[out]:
                depth[j], missing[j] = max(depth[j], depth[i] + 1), missing[j] - 1
                if missing[j] == 0:
                    ready.append(j)
        if settled != len(gates):
            raise RuntimeError("the design has a combinational loop")
        self.depth = 1 + max(depth)
        return [_group(kind, found) for (_, kind), found in sorted(groups.items())]

    def _by_word(self, names: dict) -> list[np.ndarray]:
        """The flip-flops' nets, word by word."""
        held = {net for group in self.registers for net in group.outputs.tolist()}
        words = []
        for _, name in sorted(names.items(), key=lambda item: (item[1].get("hide_name", 0), item[0])):
            word = held.intersection(map(self._net.get, name["bits"]))
            held -= word
            if word:
                words.append(np.array(sorted(word)))
        return [*words, *(np.array([net]) for net in held)]

    def net(self, port: str, bit: int) -> int:
        """The net of a port's bit."""
        return self._net[self.ports[port][bit]]

    def by_block(self, of_nets: np.ndarray) -> dict[str, float]:
        """Sums over the nets that each block drives: by the kind of instance ("product", "collector"...), "" for gates
        around them, "registers" for flip-flops around them and the ports."""
        sums: dict[str, float] = defaultdict(int)
        for block, value in zip(self._block_of, of_nets.tolist()):
            sums[block] += value
        return dict(sums)

    def per_cell(self, value: Callable[[Kind], float]) -> np.ndarray:
        """A number of each cell's kind, by the net that the cell drives."""
        found = np.zeros(self.nets)
        for group in (*self.gates, *self.registers):
            found[group.outputs] = value(self.kinds[group.kind])
        return found

    def start(self, streams: int) -> np.ndarray:
        """All nets' bits, zero but for the constant one: uint64 of shape (nets, streams / 64)."""
        value = np.zeros((self.nets, streams // 64), np.uint64)
        value[_ONE] = ~np.uint64(0)
        return value

    def packed(self, inputs: dict[str, np.ndarray]) -> list[tuple[list[int], np.ndarray]]:
        """Of each port its nets and their bits, clock by clock, streams packed as in :meth:`start`."""
        return [
            (
                [self.net(name, bit) for bit in range(x.shape[2])],
                np.packbits(x, axis=1, bitorder="little").transpose(0, 2, 1).copy().view(np.uint64),
            )
            for name, x in inputs.items()
        ]

    def settle(self, value: np.ndarray) -> None:
        """All gates' outputs, in place."""
        for group in self.gates:
            function = self.kinds[group.kind].function
            assert function is not None
            value[group.outputs] = function(*(value[pin] for pin in group.inputs))

    def run(self, inputs: dict[str, np.ndarray], watched: str | None = None, skip: int = 0) -> Activity:
        """Simulates streams side by side, all registers 0 at first.

        Args:
            inputs: by port the bits of every clock, bool of shape (clocks, streams, bits), streams a multiple of
                64; a port that is missing is 0.
            watched: an output port whose bits are wanted.
            skip: clocks at the start that are not counted.
        """
        clocks, streams = next(iter(inputs.values())).shape[:2]
        value, ports = self.start(streams), self.packed(inputs)
        switched, written, seen = np.zeros(value.shape, np.int64), np.zeros(value.shape, np.int64), []
        at = [self.net(watched, bit) for bit in range(len(self.ports[watched]))] if watched else []
        for clock in range(clocks):
            before = value.copy()
            if clock:  # the registers take what stood before them
                for group in self.registers:
                    value[group.outputs] = before[group.inputs[0]]
            for nets, bits in ports:
                value[nets] = bits[clock]
            self.settle(value)
            if clock > skip:
                changed = value ^ before
                switched += np.bitwise_count(changed)
                for word in self._words:
                    written[word] += np.bitwise_count(np.bitwise_or.reduce(changed[word]))
            if watched:
                seen.append(np.unpackbits(value[at].view(np.uint8), axis=1, bitorder="little").T)
        return Activity(switched, written, np.array(seen) if watched else None)


def _group(kind: str, cells: list[tuple[list[int], int]]) -> Group:
    return Group(kind, np.array([inputs for inputs, _ in cells]).T, np.array([out for _, out in cells]))


def _block(cell: str) -> str:
    """The instance that a cell is counted with: "g_rom.u_rom.g_lane[3].u_term.$abc$1" is in "term"."""
    instances = [part.strip("\\")[2:] for part in cell.replace("$flatten", "").split(".")]
    return next((instance for instance in instances if instance in _BLOCKS), "")
