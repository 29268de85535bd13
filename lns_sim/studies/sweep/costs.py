"""What a point of a sweep costs beside its accuracy: energy, area or cycles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from lns_sim.checks import check_choice
from lns_sim.nn import convert
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies.energy.energy import datapath_of, multiplied, of_summary, refuse_blocks
from lns_sim.studies.energy.mapping import map_pass
from lns_sim.studies.energy.technologies import get
from lns_sim.studies.energy.technology import Technology
from lns_sim.watching.summary import summary

# Names of costs, as columns call them, and what they mean.
COSTS = {
    "energy": ("uJ a sample", "energy of training on one sample in microjoule, by lns_sim.energy"),
    "area": ("um2", "square micrometre of one vector's hardware, the largest of the passes'"),
    "cycles": ("cycles a sample", "cycles of one processing element for training on one sample"),
}


def _energy(model: nn.Module, batch: Tensor, technology: Technology) -> float:
    refuse_blocks(model)
    return 1000 * of_summary(summary(model, batch), technology).total() / len(batch)


def _area(model: nn.Module, batch: Tensor, technology: Technology) -> float:
    refuse_blocks(model)
    return max(technology.area(datapath_of(p)) for p in multiplied(summary(model, batch)))


def _cycles(model: nn.Module, batch: Tensor, technology: Technology) -> float:
    passes = multiplied(summary(model, batch))
    return sum(map_pass(p, p.datapath.vector_size).cycles for p in passes) / len(batch)


_FUNCTIONS: dict[str, Callable[[nn.Module, Tensor, Technology], float]] = {
    "energy": _energy,
    "area": _area,
    "cycles": _cycles,
}


def check_costs(names: Sequence[str], technology: str) -> None:
    """Raises ValueError for names that are none, a technology that does not know them, or one that they do not need;
    OSError where its file cannot be read.
    """
    for name in names:
        check_choice("a cost", name, COSTS)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a sweep has one or more different costs, got {', '.join(names) or 'none'}")
    source = get(technology)
    if "area" in names and not source.areas:
        raise ValueError(f"the technology {source.name} gives no areas: take measured, or a price file with area_um2")
    if tuple(names) == ("cycles",) and technology != "paper":
        raise ValueError("the technology would change nothing: cycles are the same in all")


def costs_of(
    names: Sequence[str], model: nn.Module, batch: Tensor, recipe: Recipe | ModelRecipe, technology: str
) -> list[float]:
    """The costs of training a float32 model by a recipe, in the names' order.

    Args:
        names: of COSTS.
        model: on the meta device, unconverted; it is converted in place.
        batch: its input.
        recipe: by which it is converted.
        technology: see :func:`lns_sim.energy`.

    Raises:
        NoSuchDesign: the technology has no such datapath.
        ValueError: it does not know the datapath's area.
        OSError: the price file cannot be read.
    """
    converted, source = convert(model, recipe), get(technology)
    return [_FUNCTIONS[name](converted, batch, source) for name in names]
