"""Energy of a training iteration: every product of a model, mapped to the processing element and priced by
component.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import asdict, dataclass, field

from torch import nn

from lns_sim import recipes
from lns_sim.checks import check_module
from lns_sim.datapaths import AnyDatapath
from lns_sim.nn import LNSWeight, convert
from lns_sim.nn.methods import scope_of
from lns_sim.studies.energy.components import Memory, Prices
from lns_sim.studies.energy.mapping import Work, map_pass
from lns_sim.studies.energy.technologies import get
from lns_sim.studies.energy.technology import NoSuchDesign, Technology, changes, tensors_of
from lns_sim.watching.passes import Pass
from lns_sim.watching.summary import Summary, summary


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


@dataclass(repr=False)
class Energy:
    """What :func:`energy` found.

    Attributes:
        technology: where all of its prices come from, as :meth:`Technology.describe` gives it.
        rows: in the order of the forward pass.
        rests_on: what the numbers of each format, and those of all, rest on, one line each.
        notes: what else a reader should know, one sentence each.
        float_products: (layer, operator, how often) that run in float32 beside the processing element, and are not
            in it.
    """

    technology: dict[str, object]
    rows: list[Row]
    rests_on: dict[str, str]
    notes: list[str]
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

    def __repr__(self) -> str:
        totals = ", ".join(f"{name} {self.total(name):.4g}" for name in self.formats)
        return f"Energy({totals} mJ by technology {self.technology['name']})"

    def __str__(self) -> str:
        lines = [f"{self.products:,} products"]
        for name in self.formats:
            total = self.total(name)
            lines.append(f"{name:5} {total:10.4g} mJ  {total / self.products * 1e12:7.1f} fJ a product")
        return "\n".join([*lines, *self.basis()])

    def basis(self) -> list[str]:
        """What each format's numbers rest on, and the notes, a line each."""
        return [*(f"{name}: {line}." for name, line in self.rests_on.items()), *(f"{note}." for note in self.notes)]


def price(work: Work, prices: Prices, memory: Memory) -> dict[str, float]:
    """Femtojoule by component."""
    if prices.idle is None:
        found = {name: fj * work.slots for name, fj in prices.slot.items()}
    else:
        found = {name: fj * work.products for name, fj in prices.slot.items()}
        found["idle lanes"] = prices.idle * (work.slots - work.products)
    if prices.accumulation:
        found["accumulation"] = prices.accumulation * work.accumulations
    size = prices.bits / 8
    return {**found, "buffer A": memory.a * size * work.a_reads, "buffer B": memory.b * size * work.b_reads}


def lns_prices(p: Pass, technology: Technology) -> Prices:
    """What LNS products of a pass cost.

    Raises:
        ValueError: it is multiplied in float32, or the technology has no such datapath.
    """
    return technology.lns(datapath_of(p), tensors_of(p), max(f.bits for f in p.operands))


def datapath_of(p: Pass) -> AnyDatapath:
    """The datapath of a pass.

    Raises:
        ValueError: it is multiplied in float32.
    """
    if p.datapath is None:
        raise ValueError(
            f"the {p.name.replace('_', ' ')} of layer {p.layer or '(model)'} is multiplied in float32 by this recipe; "
            "energy and cycles are estimated of recipes with an LNS datapath in every pass"
        )
    return p.datapath


def multiplied(found: Summary) -> list[Pass]:
    """The passes that have products.

    Raises:
        ValueError: there is none, or the batch is empty.
    """
    passes = [p for p in found.passes if p.shape is not None]
    if not passes:
        raise ValueError("the model has no product on a datapath")
    if not any(p.macs for p in passes):
        raise ValueError("the batch is empty: nothing is multiplied")
    return passes


def of_summary(found: Summary, technology: Technology) -> Energy:
    """The energy of what :func:`lns_sim.summary` reported.

    Raises:
        ValueError: a product runs in float32 (fake-quant), there is none, or the technology has no such datapath.
    """
    memory, rows, lines = technology.memory(), [], defaultdict(dict)
    for p in multiplied(found):
        prices = {"LNS": lns_prices(p, technology), **technology.others(tensors_of(p))}
        works = {name: map_pass(p, q.vector_size, bits=q.bits) for name, q in prices.items()}
        energies = {name: price(works[name], q, memory) for name, q in prices.items()}
        rows.append(Row(p.layer, p.kind, p.name, p.useful, works["LNS"].utilization, energies))
        for name, q in prices.items():
            lines[name] |= {q.rests_on: None}
    rests_on = {name: "; ".join(line) for name, line in lines.items()} | technology.common()
    result = Energy(technology.describe(), rows, rests_on, [], found.float_products)
    result.notes += _notes(result, found, technology)
    return result


def _notes(result: Energy, found: Summary, technology: Technology) -> list[str]:
    notes = []
    changed = dict.fromkeys(", ".join(changes(datapath_of(p))) for p in multiplied(found))
    if any(changed) and len(result.formats) > 1:
        notes.append(
            f"Only LNS's datapath was changed ({'; '.join(filter(None, changed))}): the hardware of the other formats "
            "is the one that is compared with 8 bits at gamma 8, vectors of 32 lanes and 24-bit accumulators"
        )
    sparse = [row for row in result.rows if row.utilization < 0.5]
    share = sum(sum(row.energy["LNS"].values()) for row in sparse) * 1e-12 / result.total()
    if share > 0.01:
        products = sum(row.products for row in sparse) / result.products
        priced = technology.lns(datapath_of(multiplied(found)[0]), "forward").idle
        notes.append(
            f"{share:.0%} of LNS's energy goes into passes that use less than half of the lanes, which have "
            f"{products:.1%} of the products; an idle lane costs "
            + ("as much as a busy one, as the paper says nothing else" if priced is None else f"{priced:,.1f} fJ")
        )
    return notes


def converted(model: nn.Module, recipe) -> nn.Module:
    """The model, or a copy converted by the recipe (None: LNS-Madam's) where it is not.

    Raises:
        TypeError: it is no module.
        ValueError: it is converted already, and a recipe is given; or it has block scales.
    """
    check_module(model)
    if not any(isinstance(p, LNSWeight) for p in model.parameters()):
        model = convert(copy.deepcopy(model), recipes.lns_madam() if recipe is None else recipe)
    elif recipe is not None:
        raise ValueError("the model is converted already; its own recipe counts")
    refuse_blocks(model)
    return model


def refuse_blocks(model: nn.Module) -> None:
    """Raises NoSuchDesign if a converted model has block scales."""
    scopes = filter(None, map(scope_of, model.modules()))
    if any(scope.recipe is not None and scope.recipe.block is not None for scope in scopes):
        raise NoSuchDesign('no processing element here has block scales: give the recipe without them, block = "none"')


def energy(model: nn.Module, *args, recipe=None, technology: str | Technology = "paper", **kwargs) -> Energy:
    """Energy of one training iteration of a model on the paper's processing element, beside other formats on the like.

    Forward, input gradients and weight gradients of all products: lanes, accumulation, and reads of the processing
    element's buffers. Not counted: what leaves it (post-processing, larger memories), the optimizer, normalization and
    activations; for the first three see :func:`cycles`. ``docs/energy.md`` explains the model, how far it agrees with
    LNS-Madam's (IEEE TC 2022) table, and what this project's own hardware says.

    Args:
        model: converted (its datapaths are priced), or not (then a copy is converted). On the meta device nothing
            is computed.
        args, kwargs: what its forward takes, a batch of the size of interest.
        recipe: by which a float32 model's copy is converted; None: LNS-Madam's.
        technology: where all prices come from: "paper" (calibrated on its table; FP8, FP16, FP32 and INT8 beside LNS),
            "measured" (this project's RTL on real cells, and the vectors of other formats measured with it) or the
            path of a price file.

    Returns:
        An :class:`Energy`; printing it gives totals.

    Raises:
        TypeError: model is no module.
        ValueError: a product of the converted model runs in float32 (fake-quant), it has none on a datapath, or the
            technology does not exist, or has no such datapath.
        OSError: the price file cannot be read.
    """
    source = get(technology)
    return of_summary(summary(converted(model, recipe), *args, **kwargs), source)
