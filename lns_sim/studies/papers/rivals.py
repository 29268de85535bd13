"""All systems on the same networks: accuracy or loss, and energy beside it."""

from __future__ import annotations

from typing import Any

from lns_sim import recipes
from lns_sim.format import LNSFormat
from lns_sim.quantizers import LNS, LUQ, Quantizer
from lns_sim.recipes import PASSES, Recipe
from lns_sim.registry import RECIPES
from lns_sim.studies.contest import bits_of, has_hardware
from lns_sim.studies.energy import Energy, energy
from lns_sim.studies.energy.technology import NoSuchDesign
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.lns_madam import tuned
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, length
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, compared, find, points
from lns_sim.studies.training.trainer import on_meta

SPARED = ("lns-madam-fake-quant",)  # the same as another, but for what a bit-exact run adds


def hardware(left: Quantizer | None, right: Quantizer | None) -> str | None:
    """The hardware that multiplies such tensors, as energies name it; None where there is none."""
    names = {_format(q) for q in (left, right)}
    if names == {"FP4", "INT4"}:
        return "FP4 x INT4"
    return names.pop() if len(names) == 1 else None


def _format(q: Quantizer | None) -> str | None:
    if q is None:
        return "FP32"
    if isinstance(q, LUQ):
        return "FP4" if q.bits == 4 else None
    return q.hardware or (f"INT{q.bits}" if q.largest is not None else None)


def _with_datapaths(recipe: Recipe | None) -> Recipe:
    """A recipe whose datapaths are what LNS products cost: its own, without any the default one of its format."""
    quantizers = [recipe and recipe.quantizer(kind) for kinds in PASSES.values() for kind in kinds]
    formats = [q.format for q in quantizers if isinstance(q, LNS)]
    if recipe is None or not formats:
        return recipes.lns_madam()
    if all(getattr(recipe, step) is not None for step in PASSES):
        return recipe
    format = LNSFormat.holding(*formats)
    return recipes.lns_madam(format.bits, format.gamma)


def energies(bench: Bench, data: dict, network: str, batch: int, recipe: Any) -> dict[str, Any]:
    """Microjoule of training on one sample, at the paper's prices and at those of our RTL.

    A format that the paper's technology lacks costs what INT8 does there, times its energy to INT8's in our RTL, pass
    by pass; 6-bit integers are the geometric mean of INT4 and INT8 in our RTL. Both are marked "extrapolated". LNS
    products cost what the recipe's datapaths do, or without any the default one of its format. Nothing is given where
    there are no prices of the hardware, as of block scales.
    """
    chosen = recipes.from_plain(recipe)
    if not has_hardware(chosen):
        return {}
    model, x = on_meta(network, bench.data(**data), batch)
    paper, ours = (energy(model, x, recipe=recipes.lns_madam(), technology=t) for t in ("paper", "measured"))

    def of_codes(technology: str) -> Energy | None:
        try:
            return energy(model, x, recipe=_with_datapaths(chosen), technology=technology)
        except NoSuchDesign:
            return None

    codes_at_papers, codes_at_ours = of_codes("paper"), of_codes("measured")

    def at_ours(name: str, step: str) -> float | None:
        if name == "LNS":
            return codes_at_ours and sum(codes_at_ours.components(name, step).values())
        if name == "INT6":
            return (at_ours("INT4", step) * at_ours("INT8", step)) ** 0.5
        return sum(ours.components(name, step).values()) if name in ours.formats else None

    def at_papers(name: str, step: str) -> float | None:
        if name == "LNS":
            return codes_at_papers and sum(codes_at_papers.components(name, step).values())
        if name in paper.formats:
            return sum(paper.components(name, step).values())
        own = at_ours(name, step)
        return own and sum(paper.components("INT8", step).values()) * own / at_ours("INT8", step)

    used = {step: hardware(*(chosen and chosen.quantizer(kind) for kind in kinds)) for step, kinds in PASSES.items()}
    repeats = {"weight_gradient": getattr(chosen and chosen.error, "samples", 1)}
    found: dict[str, Any] = {}
    for column, price, formats in (
        ("uJ a sample, paper's prices", at_papers, paper.formats),
        ("uJ a sample, our RTL at 0.18 um", at_ours, ours.formats),
    ):
        parts = {step: name and price(name, step) for step, name in used.items()}
        if all(value is not None for value in parts.values()):
            total = sum(value * repeats.get(step, 1) for step, value in parts.items())
            basis = "" if set(used.values()) <= set(formats) else " (extrapolated)"
            found[column] = f"{1000 * total / len(x):.3g}{basis}"
    return found


class Rivals(Study):
    """Every recipe at its own learning rate, on one network."""

    paper = "the papers of all systems (docs/comparators.md), each of which reports no loss against float32"

    def task(self, preset: Preset):
        """Which network."""
        raise NotImplementedError

    def cells(self, preset: Preset) -> list[Cell]:
        task, found = self.task(preset), []
        for name in (n for n in RECIPES if n not in SPARED):
            recipe, trained = recipes.get(name), [tuned(preset, task, name, seed) for seed in range(preset.seeds)]
            priced = Run(
                f"{task.network}, {name}, energy",
                energies,
                {"data": task.source, "network": task.network, "batch": task.batch, "recipe": recipes.to_plain(recipe)},
                seconds=5,
            )
            bits = bits_of(recipe)
            labels = {"recipe": name, "bits": " ".join(bits[k] for k in ("activation", "weight", "error", "gradient"))}
            found.append(Cell(labels, task.measure, trained, beside=priced))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        points(figure.subplots(), rows, "recipe")

    def claims(self, rows: list[Row]) -> list[Claim]:
        full = find(rows, recipe="fp32")
        margin = -1 if rows and "%" in rows[0].measure else -0.05
        unit = "a point" if margin == -1 else "0.05 nats"
        return [
            compared(f"{row.labels['recipe']} loses less than {unit} against float32", row, full, margin=margin)
            for row in rows
            if row.labels["recipe"] != "fp32"
        ]

    def note(self, preset: Preset) -> str:
        return (
            f"{length(self.task(preset))}; LNS-Madam bit-exact; each one's learning rate searched; bits of activation, "
            "weight, error, gradient; ShiftQuant's energy without shifts and zero points"
        )


class OnImages(Rivals):
    """On the image network of the other studies."""

    name = "rivals-images"
    title = "All systems on images"

    def task(self, preset: Preset):
        return preset.network


class OnLarge(Rivals):
    """On the large image network."""

    name = "rivals-large"
    title = "All systems on images, large network"

    def task(self, preset: Preset):
        return preset.large


class OnText(Rivals):
    """On the decoder."""

    name = "rivals-text"
    title = "All systems on text"

    def task(self, preset: Preset):
        return preset.decoder
