"""Cycles, time and memory traffic of a training iteration: every pass on an array of processing elements, its operands
and results in a global buffer and DRAM, and the optimizer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from torch import nn

from lns_sim.checks import check_number
from lns_sim.nn import LNSWeight
from lns_sim.recipes import PASSES
from lns_sim.studies.energy.components import Memory, number
from lns_sim.studies.energy.energy import converted, datapath_of, lns_prices, multiplied, price
from lns_sim.studies.energy.mapping import Array, Work, map_pass
from lns_sim.studies.energy.technologies import get
from lns_sim.studies.energy.technology import Technology
from lns_sim.watching.passes import Pass
from lns_sim.watching.summary import summary

_RESULTS = {"forward": "activation", "input_gradient": "error", "weight_gradient": "gradient"}


@dataclass(frozen=True)
class Step:
    """One pass of one product, a look-up, or the optimizer.

    Attributes:
        layer, kind, name: as in :class:`lns_sim.watching.passes.Pass`; of the optimizer "", "optimizer" and
            "optimizer".
        products: of numbers that count.
        cycles: of the array.
        utilization: the products' share of what the cycles have room for.
        dram: bytes read and written, by tensor kind.
        global_buffer: bytes read and written.
        compute: seconds that the array takes.
        memory: seconds that DRAM takes, beside it.
        energy: by component, in femtojoule.
    """

    layer: str
    kind: str
    name: str
    products: int
    cycles: float
    utilization: float
    dram: dict[str, float]
    global_buffer: float
    compute: float
    memory: float
    energy: dict[str, float]

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        """Which of them that is: "array" or "DRAM"."""
        return "DRAM" if self.memory > self.compute else "array"


@dataclass(repr=False)
class Cycles:
    """What :func:`cycles` found.

    Attributes:
        technology: as in :class:`lns_sim.studies.energy.Energy`.
        array: the processing elements.
        clock: in GHz.
        peak: products a second that the array has room for.
        bandwidth: of DRAM, in bytes a second.
        buffer: bytes of the global buffer.
        steps: in the order of the forward pass, the optimizer last.
        rests_on: as in :class:`lns_sim.studies.energy.Energy`, of LNS.
    """

    technology: dict[str, object]
    array: Array
    clock: float
    peak: float
    bandwidth: float
    buffer: int
    steps: list[Step]
    rests_on: dict[str, str]

    def __repr__(self) -> str:
        made = f"{self.array}, {self.clock:.4g} GHz, technology {self.technology['name']}"
        return f"Cycles({self.cycles:,.0f} in {1e3 * self.seconds:.4g} ms, {self.total():.4g} mJ; {made})"

    @property
    def cycles(self) -> float:
        """Of the array, in all passes."""
        return sum(step.cycles for step in self.steps)

    @property
    def seconds(self) -> float:
        """Of the iteration: a step after the other."""
        return sum(step.seconds for step in self.steps)

    @property
    def utilization(self) -> float:
        """The products' share of what the array's cycles have room for."""
        return sum(step.products for step in self.steps) / (self.cycles * self.peak / (self.clock * 1e9))

    @property
    def names(self) -> list[str]:
        """Of the passes that there are, in their order, then "optimizer"."""
        return [name for name in (*PASSES, "optimizer") if any(step.name == name for step in self.steps)]

    def components(self, pass_name: str | None = None) -> dict[str, float]:
        """Millijoule by component, of all steps or of a pass (or "optimizer")."""
        sums: Counter[str] = Counter()
        for step in self.steps:
            if pass_name in (None, step.name):
                sums.update({name: fj * 1e-12 for name, fj in step.energy.items()})
        return dict(sums)

    def dram(self, pass_name: str | None = None) -> dict[str, float]:
        """Bytes of DRAM by tensor kind, of all steps or of a pass (or "optimizer")."""
        sums: Counter[str] = Counter()
        for step in self.steps:
            if pass_name in (None, step.name):
                sums.update(step.dram)
        return dict(sums)

    def total(self) -> float:
        """Millijoule of an iteration."""
        return sum(self.components().values())

    def to_dict(self) -> dict:
        """Plain data for JSON: all steps, and totals."""
        totals = {
            "cycles": self.cycles,
            "seconds": self.seconds,
            "utilization": self.utilization,
            "mJ": self.total(),
            "mJ by component": self.components(),
            "DRAM bytes": self.dram(),
        }
        return {"totals": totals, **asdict(self)}


def _bits(codes) -> int:
    return 32 if codes is None else codes.bits


def _tensors(p: Pass) -> list[tuple[str, float]]:
    """Kind and bytes of a pass' operands and of its result."""
    if p.kind == "embedding":
        operands, made = (("weight", p.operands[0]),), ("activation", None)
    else:
        kinds = PASSES[p.name]
        if p.kind == "product":  # of two computed tensors
            kinds = tuple("activation" if kind == "weight" else kind for kind in kinds)
        operands = tuple(zip(kinds, p.operands))
        made = ("error" if p.kind == "product" and p.name != "forward" else _RESULTS[p.name], p.result)
    return [(kind, n * _bits(codes) / 8) for (kind, codes), n in zip((*operands, made), p.numbers)]


def _cuts(parts: int) -> Iterator[tuple[int, int]]:
    """Rows and columns that cut sums into so many parts: of each number of columns the fewest rows."""
    rows = 1
    while rows <= parts:
        columns = math.ceil(parts / rows)
        yield rows, columns
        rows = math.ceil(parts / (columns - 1)) if columns > 1 else parts + 1


def traffic(p: Pass, buffer: float) -> tuple[dict[str, float], int]:
    """Bytes between DRAM and a global buffer of so many, by tensor kind; how often each sum goes there and comes back.

    Nothing stays from one pass to the next, and results are written once. Within a pass half of the buffer keeps an
    operand, or the sums, part by part, while the rest passes by as often as it has to; the cheapest way counts.
    """
    *operands, (made, size) = _tensors(p)
    found, ways = Counter({made: size}), [((1,) * len(operands), 0)]
    if p.shape is not None:
        repeats, half = p.shape.repeats, buffer / 2
        x, y = (n / repeats for _, n in operands)
        sums = p.numbers[-1] / repeats * p.datapath.acc_bits / 8
        ways = [((1, math.ceil(x / half)), 0), ((math.ceil(y / half), 1), 0)]
        for rows, columns in _cuts(math.ceil(sums / half)):
            ways.append(((columns, rows), math.ceil((x / rows + y / columns) / half) - 1))
    times, spills = min(ways, key=lambda way: (sum(n * t for (_, n), t in zip(operands, way[0])), way[1]))
    for (kind, n), t in zip(operands, times):
        found[kind] += n * t
    return dict(found), spills


def _step(p: Pass, technology: Technology, array: Array, clock: float, buffer: int, memory: Memory) -> Step:
    dram, spills = traffic(p, buffer)
    moved, work, parts = sum(dram.values()), Work(), {}
    shared, sums = moved + _tensors(p)[-1][1], 0.0
    if p.shape is not None:
        prices = lns_prices(p, technology)
        work = map_pass(p, prices.vector_size, array, prices.bits)
        parts = price(work, prices, memory)
        shared += (work.a_fills + work.b_fills) * prices.bits / 8
        sums = 2 * (work.partial_sums + spills * p.numbers[-1]) * p.datapath.acc_bits / 8  # out and back
        if sums:
            parts["partial sums"] = memory.global_buffer * sums
        parts["post-processing"] = technology.process.operations("post_processing") * p.numbers[-1]
    parts |= {"global buffer": memory.global_buffer * shared, "DRAM": memory.dram * moved}
    compute, waiting = work.cycles / (clock * 1e9), moved / (memory.bandwidth * 1e9)
    done = work.products, work.cycles, work.utilization
    return Step(p.layer, p.kind, p.name, *done, dram, shared + sums, compute, waiting, parts)


def _optimizer(model: nn.Module, technology: Technology, memory: Memory) -> Step:
    """LNS-Madam on the weights: update codes, second moments and gradients, and the forward codes that it leaves; plain
    gradient descent on float parameters.
    """
    dram: Counter[str] = Counter()
    weights = 0
    for p in model.parameters():
        if isinstance(p, LNSWeight):
            r = p.recipe
            weights += p.numel()
            dram["weight"] += p.numel() * (2 * r.update.bits + r.quantizer("weight").bits) / 8
            dram["moment"] += p.numel() * 2 * number("moment")
            dram["gradient"] += p.numel() * _bits(r.quantizer("gradient")) / 8
        else:
            dram["float parameter"] += p.numel() * 4 * 4  # itself and its gradient, read and written
    moved = sum(dram.values())
    parts = {"optimizer": technology.process.operations("madam") * weights, "DRAM": memory.dram * moved}
    return Step("", "optimizer", "optimizer", 0, 0, 0.0, dict(dram), 0.0, 0.0, moved / (memory.bandwidth * 1e9), parts)


def cycles(
    model: nn.Module,
    *args,
    recipe=None,
    technology: str | Technology = "paper",
    array: Array = Array(),  # noqa: B008
    clock: float | None = None,
    global_buffer: int | None = None,
    **kwargs,
) -> Cycles:
    """Cycles, time, memory traffic and energy of one training iteration of a model on an array of processing elements.

    Passes run one after the other; in each the array and DRAM work at the same time. Counted: the products of
    :func:`energy`, post-processing, the global buffer, DRAM, and LNS-Madam. Not counted: normalization, activations and
    other work in float32, the pipeline's few cycles a pass, and static power.

    Args:
        model, args, recipe, technology, kwargs: as for :func:`energy`.
        array: the processing elements and their dataflow.
        clock: in GHz; None: the technology's highest.
        global_buffer: its bytes; None: 2 MiB.

    Returns:
        A :class:`Cycles`, LNS only.

    Raises:
        TypeError, ValueError: as :func:`energy`, or the technology's hardware does not run at the clock.
        OSError: the price file cannot be read.
    """
    if not isinstance(array, Array):
        raise TypeError(f"array must be a lns_sim.studies.energy.Array, got {array!r}")
    source, buffer = get(technology), int(number("global_buffer")) if global_buffer is None else global_buffer
    built = converted(model, recipe)
    found = summary(built, *args, **kwargs)
    passes = multiplied(found)
    prices = {q.rests_on: q.vector_size for q in (lns_prices(p, source) for p in passes)}
    limits = [limit for p in passes if (limit := source.clock(datapath_of(p))) is not None]
    clock = _clock(clock, min(limits, default=None), source)
    memory = source.memory(buffer)
    steps = [_step(p, source, array, clock, buffer, memory) for p in found.passes]
    steps.append(_optimizer(built, source, memory))
    peak = array.pes * number("lanes") * max(prices.values()) * clock * 1e9
    rests_on = {"LNS": "; ".join(prices)} | source.common()
    return Cycles(source.describe(), array, clock, peak, memory.bandwidth * 1e9, buffer, steps, rests_on)


def _clock(asked: float | None, highest: float | None, technology: Technology) -> float:
    if asked is not None:
        check_number("clock", asked, 0.0, low_open=True)
    if asked is None and highest is None:
        raise ValueError(f"{technology.name} does not say how fast its hardware is: give a clock")
    if asked is not None and highest is not None and asked > highest * 1.0005:  # as printed with four digits
        raise ValueError(f"the hardware of {technology.name} runs at {highest:.4g} GHz at most, got {asked:g}")
    return highest if asked is None else asked
