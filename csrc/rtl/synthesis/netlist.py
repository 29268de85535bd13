"""A synthesized design at gate level: simulated over many streams at once, counting how often each net switches.

Zero delay: a net switches at most once a clock, glitches are not seen. A net's load is the gate inputs that it drives.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from csrc.rtl.design import Design
from csrc.rtl.synthesis import yosys

_GATES = {"$_NOT_": 1, "$_AND_": 2, "$_OR_": 2, "$_XOR_": 2, "$_MUX_": 3}  # inputs
FLIP_FLOP = 16  # transistors; these and those of the gates are Yosys' estimate for static CMOS
_TRANSISTORS = {"$_NOT_": 2, "$_AND_": 6, "$_OR_": 6, "$_XOR_": 12, "$_MUX_": 12, "$_DFF_P_": FLIP_FLOP}
_BLOCKS = ("product", "term", "tree", "collector", "results")  # instances of yosys.BLOCKS
_ZERO, _ONE = 0, 1  # the nets of the constants


def _apply(kind: str, inputs: list[np.ndarray], out: np.ndarray) -> None:
    if kind == "$_NOT_":
        np.invert(inputs[0], out=out)
    elif kind == "$_AND_":
        np.bitwise_and(*inputs, out=out)
    elif kind == "$_OR_":
        np.bitwise_or(*inputs, out=out)
    elif kind == "$_XOR_":
        np.bitwise_xor(*inputs, out=out)
    else:  # S ? B : A
        a, b, s = inputs
        out[...] = a ^ (s & (a ^ b))


class Netlist:
    """A design's gates in the order in which they settle, its flip-flops, and the net of each port's bit.

    Attributes:
        loads: gate inputs that each net drives, shape (nets,).
        cells: gates and flip-flops.
        flip_flops: how many there are.
        transistors: of each block (see :meth:`by_block`).
        depth: most gates between two registers.
    """

    def __init__(self, design: Design):
        module = yosys.gates(design)
        self.ports = {name: port["bits"] for name, port in module["ports"].items()}
        cells = [(cell["type"], cell["connections"], _block(name)) for name, cell in module["cells"].items()]
        bits = {b for port in self.ports.values() for b in port} | {
            b for _, c, _ in cells for pins in c.values() for b in pins
        }
        self._net = {"0": _ZERO, "1": _ONE, "x": _ZERO}
        for bit in sorted(b for b in bits if isinstance(b, int)):
            self._net[bit] = len(self._net) - 1  # "x" shares a net
        self.nets = max(self._net.values()) + 1
        self.loads = np.zeros(self.nets, np.int64)
        self._block_of = ["registers"] * self.nets  # ports, too
        self._registers: tuple[list[int], list[int]] = ([], [])  # D and Q
        self.cells, self.transistors = len(cells), defaultdict(int)
        waiting = []
        for kind, pins, block in cells:
            at = {pin: self._net[bits[0]] for pin, bits in pins.items()}
            out = at["Q" if kind == "$_DFF_P_" else "Y"]
            block = "registers" if kind == "$_DFF_P_" and not block else block
            self._block_of[out] = block
            self.transistors[block] += _TRANSISTORS[kind]
            if kind == "$_DFF_P_":
                self._registers[0].append(at["D"])
                self._registers[1].append(out)
                self.loads[at["D"]] += 1
            elif kind in _GATES:
                inputs = [at[pin] for pin in "ABS"[: _GATES[kind]]]
                np.add.at(self.loads, inputs, 1)
                waiting.append((kind, inputs, out))
            else:
                raise RuntimeError(f"a gate of an unknown kind: {kind}")
        self.flip_flops = len(self._registers[0])
        self._levels = self._in_order(waiting)

    def _in_order(self, gates) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Gates of one kind whose inputs are all settled, group by group: (kind, inputs (pins, gates), outputs)."""
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
        return [
            (kind, np.array([i for i, _ in found]).T, np.array([out for _, out in found]))
            for (_, kind), found in sorted(groups.items())
        ]

    def net(self, port: str, bit: int) -> int:
        """The net of a port's bit."""
        return self._net[self.ports[port][bit]]

    def by_block(self, of_nets: np.ndarray) -> dict[str, int]:
        """Sums over the nets that each block drives: by the kind of instance ("product", "collector"...), "" for gates
        around them, "registers" for flip-flops around them and the ports."""
        sums: dict[str, int] = defaultdict(int)
        for block, value in zip(self._block_of, of_nets.tolist()):
            sums[block] += value
        return dict(sums)

    def run(
        self, inputs: dict[str, np.ndarray], watched: str | None = None, skip: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Simulates streams side by side, all registers 0 at first.

        Args:
            inputs: by port the bits of every clock, bool of shape (clocks, streams, bits), streams a multiple of
                64; a port that is missing is 0.
            watched: an output port whose bits are wanted.
            skip: clocks at the start that are not counted.

        Returns:
            how often each net switched, int64 of shape (nets,), and the watched port's bits before each clock's edge.
        """
        clocks, streams = next(iter(inputs.values())).shape[:2]
        words = {
            name: np.packbits(x, axis=1, bitorder="little").transpose(0, 2, 1).copy().view(np.uint64)
            for name, x in inputs.items()
        }
        value = np.zeros((self.nets, streams // 64), np.uint64)
        value[_ONE] = ~np.uint64(0)
        at = {name: [self.net(name, bit) for bit in range(len(bits))] for name, bits in self.ports.items()}
        data, held = (np.array(nets) for nets in self._registers)
        switched, seen = np.zeros(self.nets, np.int64), []
        for clock in range(clocks):
            before, state = value.copy(), value[data]
            if clock:  # the registers take what stood before them
                value[held] = state
            for name, bits in words.items():
                value[at[name]] = bits[clock]
            for kind, pins, outs in self._levels:
                settled = np.empty((len(outs), value.shape[1]), np.uint64)
                _apply(kind, [value[p] for p in pins], settled)
                value[outs] = settled
            if clock > skip:
                switched += np.bitwise_count(value ^ before).sum(1, dtype=np.int64)
            if watched:
                seen.append(np.unpackbits(value[at[watched]].view(np.uint8), axis=1, bitorder="little").T)
        return switched, np.array(seen) if watched else None


def _block(cell: str) -> str:
    """The instance that a cell is counted with: "g_rom.u_rom.g_lane[3].u_term.$abc$1" is in "term"."""
    instances = [part.strip("\\")[2:] for part in cell.replace("$flatten", "").split(".")]
    return next((instance for instance in instances if instance in _BLOCKS), "")
