"""Energy of a training iteration: every product of a model, mapped to the processing element and priced by
component.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import asdict, dataclass, field

from torch import nn

from lns_sim import recipes
from lns_sim.datapath import Datapath
from lns_sim.nn import LNSWeight, convert
from lns_sim.studies.energy.components import FORMATS, Prices, float_prices, lns_prices, number
from lns_sim.studies.energy.mapping import Work, map_pass
from lns_sim.watching.passes import Pass
from lns_sim.watching.summary import Summary, summary

COMPONENTS = ("conversion", "multiply-add", "registers and control", "accumulation", "buffer A", "buffer B")


@dataclass(frozen=True)
class Row:
    """One pass of one product.

    Attributes:
        layer, kind, name: as in :class:`lns_sim.watching.passes.Pass`.
        products: of numbers that count.
        utilization: their share of what the cycles have room for.
        energy: by format, by component, in femtojoule.
    """

    layer: str
    kind: str
    name: str
    products: int
    utilization: float
    energy: dict[str, dict[str, float]]


@dataclass
class Energy:
    """What :func:`energy` found.

    Attributes:
        rows: in the order of the forward pass.
        calibrated: what rests on the paper's table.
        extrapolated: what does not, one sentence each.
        float_products: (layer, operator, how often) that run in float32 beside the processing element, and are not
            in it.
    """

    rows: list[Row] = field(default_factory=list)
    calibrated: str = ""
    extrapolated: list[str] = field(default_factory=list)
    float_products: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def products(self) -> int:
        """Products of numbers in all passes."""
        return sum(row.products for row in self.rows)

    @property
    def formats(self) -> list[str]:
        """LNS first."""
        return list(self.rows[0].energy) if self.rows else []

    def total(self, format: str = "LNS") -> float:
        """Millijoule of an iteration."""
        return sum(self.components(format).values())

    def components(self, format: str = "LNS", pass_name: str | None = None) -> dict[str, float]:
        """Millijoule by component, of all passes or of one."""
        sums: dict[str, float] = defaultdict(float)
        for row in self.rows:
            if pass_name in (None, row.name):
                for component, fj in row.energy[format].items():
                    sums[component] += fj * 1e-12
        return dict(sums)

    def layers(self, format: str = "LNS") -> dict[str, dict[str, float]]:
        """Millijoule by layer and component, all passes together."""
        sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for row in self.rows:
            for component, fj in row.energy[format].items():
                sums[row.layer or "(model)"][component] += fj * 1e-12
        return {layer: dict(parts) for layer, parts in sums.items()}

    def to_dict(self) -> dict:
        """Plain data for JSON: all rows, totals in millijoule, and what they rest on."""
        totals = {name: {"mJ": self.total(name), "by component": self.components(name)} for name in self.formats}
        return {"totals": totals, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.products:,} products"]
        for name in self.formats:
            total = self.total(name)
            lines.append(f"{name:5} {total:10.4g} mJ  {total / self.products * 1e12:7.1f} fJ a product")
        return "\n".join(
            [*lines, f"calibrated: {self.calibrated}", *(f"extrapolated: {note}" for note in self.extrapolated)]
        )


def price(work: Work, prices: Prices) -> dict[str, float]:
    """Femtojoule by component."""
    found = {name: fj * work.slots for name, fj in prices.slot.items()}
    if prices.accumulation:
        found["accumulation"] = prices.accumulation * work.accumulations
    return {**found, "buffer A": prices.a * work.a_reads, "buffer B": prices.b * work.b_reads}


def _lns(p: Pass) -> tuple[Datapath, Prices]:
    if p.datapath is None:
        raise ValueError(
            f"the {p.name.replace('_', ' ')} of {p.layer or 'the model'} is multiplied in float32; an energy "
            "needs a datapath "
            "in every pass"
        )
    return p.datapath, lns_prices(p.datapath, max(f.bits for f in p.operands))


def of_summary(found: Summary) -> Energy:
    """The energy of what :func:`lns_sim.summary` reported.

    Raises:
        ValueError: a product runs in float32 (fake-quant), or there is none.
    """
    others = {name: float_prices(name) for name in FORMATS}
    rows, notes = [], {}
    for p in found.passes:
        if p.shape is None:
            continue
        datapath, prices = _lns(p)
        work, full = map_pass(p, datapath.vector_size), map_pass(p, int(number("vector_size")))
        energies = {"LNS": price(work, prices)} | {name: price(full, other) for name, other in others.items()}
        rows.append(Row(p.layer, p.kind, p.name, p.useful, work.utilization, energies))
        notes |= dict.fromkeys(f"LNS: {note}" for note in prices.extrapolated)
    if not rows:
        raise ValueError("the model has no product on a datapath")
    notes |= dict.fromkeys(f"{name}: {note}" for name, other in others.items() for note in other.extrapolated)
    idle = sum(row.products for row in rows if row.utilization < 0.5) / sum(row.products for row in rows)
    if idle > 0.01:
        notes[
            f"{idle:.0%} of the products are in passes that use less than half of the lanes, where the mapping decides"
        ] = None
    calibrated = "LNS at gamma 8 with 8 LUT entries and 24-bit accumulators, FP8, FP16 and FP32, on the paper's BERTs"
    return Energy(rows, calibrated, list(notes), found.float_products)


def energy(model: nn.Module, *args, recipe=None, **kwargs) -> Energy:
    """Energy of one training iteration of a model on the paper's processing element, beside other formats on the like.

    Forward, input gradients and weight gradients of all products: lanes, accumulation, and reads of the processing
    element's
    buffers. Not counted: what leaves it (post-processing, larger memories), the optimizer, normalization and
    activations.
    ``docs/energy.md`` explains the model and how far it agrees with LNS-Madam's (IEEE TC 2022) table.

    Args:
        model: converted (its datapaths are priced), or not (then a copy is converted). On the meta device nothing
            is computed.
        args, kwargs: what its forward takes, a batch of the size of interest.
        recipe: by which a float32 model's copy is converted; None: LNS-Madam's.

    Returns:
        An :class:`Energy` with the formats LNS, FP8, FP16, FP32 and INT8; printing it gives totals.

    Raises:
        ValueError: a product of the converted model runs in float32 (fake-quant), or it has none on a datapath.
    """
    if not any(isinstance(p, LNSWeight) for p in model.parameters()):
        model = convert(copy.deepcopy(model), recipes.lns_madam() if recipe is None else recipe)
    elif recipe is not None:
        raise ValueError("the model is converted already; its own recipe counts")
    return of_summary(summary(model, *args, **kwargs))
