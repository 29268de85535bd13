"""Formats of 4 to 8 bits with block scales beside 4-bit systems that have other scales, on images and on text."""

from __future__ import annotations

from lns_sim import recipes
from lns_sim.studies.contest import bits_of
from lns_sim.studies.papers.lns_madam import tuned
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, Task, length
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, compared, find, groups, panels, points
from lns_sim.studies.papers.training import searching, training

OURS = tuple(f"lns-madam-block32{bits}" for bits in ("", "-6bit", "-5bit", "-4bit"))
OTHERS = ("luq", "shiftquant4", "mxfp4", "mxfp4-stochastic")


class Blocks(Study):
    """Accuracy and loss by recipe, each at its own learning rate."""

    name = "blocks"
    title = "Block scales in few bits"
    paper = (
        "ours: LNS-Madam with block scales beside LUQ (arXiv 2112.10769), ShiftQuant (arXiv 2411.10948) and MXFP4 (OCP "
        "MX specification 1.0)"
    )

    def cells(self, preset: Preset) -> list[Cell]:
        found = []
        for task in (preset.network, preset.decoder):
            for name in ("fp32", "lns-madam", *OURS, *OTHERS):
                bits = bits_of(recipes.get(name))
                shown = " ".join(bits[kind] for kind in ("activation", "weight", "error", "gradient"))
                trained = [_training(preset, task, name, seed) for seed in range(preset.seeds)]
                found.append(Cell({"network": task.network, "recipe": name, "bits": shown}, task.measure, trained))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "network")):
            points(axes, group, "recipe")

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for network, group in groups(rows, "network").items():
            images = "%" in group[0].measure
            margin, unit = (-1.0, "a point") if images else (-0.05, "0.05 nats")
            for names, whole in ((OURS, "lns-madam"), (OTHERS, "fp32")):  # of the same optimizer
                for name in names:
                    text = f"{network}: {name} loses less than {unit} against {whole}"
                    found.append(compared(text, find(group, recipe=name), find(group, recipe=whole), margin=margin))
            for name in OTHERS:
                text = f"{network}: {OURS[-1]} is better than {name}"
                found.append(compared(text, find(group, recipe=OURS[-1]), find(group, recipe=name)))
        return found

    def note(self, preset: Preset) -> str:
        return (
            f"{length(preset.network, preset.decoder)}; LNS-Madam bit-exact, weights kept in 16 bits; the others' in "
            "float32, and products of their codes' values; learning rates searched, that of all LNS-Madam's by 8-bit "
            "fake-quant; bits of activation, weight, error, gradient"
        )


def _training(preset: Preset, task: Task, name: str, seed: int) -> Run:
    if name not in OURS:
        return tuned(preset, task, name, seed)
    return training(task, recipes.get(name), seed, after=searching(preset, task, recipes.lns_madam_fake_quant()))
