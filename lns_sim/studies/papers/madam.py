"""Madam (arXiv 2006.14560): sensitivity to the learning rate."""

from __future__ import annotations

from lns_sim import recipes
from lns_sim.studies.papers.lns_madam import length
from lns_sim.studies.papers.presets import Preset, Task
from lns_sim.studies.papers.study import Cell, Claim, Published, Row, Study, groups, lines, panels
from lns_sim.studies.papers.training import training

PAPER = "Madam, arXiv 2006.14560"
RATES = (1.0, 0.1, 0.01, 0.001, 0.0001)
_PRINTED = {
    "images": {
        "Madam": (20.2, 80.0, 90.5, 83.5, 71.9),
        "SGD": (87.8, 92.6, 91.6, 86.8, 78.4),
        "Adam": (10, 91.4, 92.2, 93.3, 89.7),
    },
    "text": {
        "Madam": (3791, 368, 214, 268, 552),
        "SGD": (204, 375, 792, 2005, 16328),
        "Adam": (1e5, 25519, 1526, 258, 200),
    },
}
_WHAT = {"images": "CIFAR-10, %", "text": "Wikitext-2, perplexity: another unit than here"}


class LearningRates(Study):
    """Accuracy by learning rate over five decades, for Madam, SGD and Adam in float32."""

    name = "madam-learning-rates"
    title = "Madam, SGD and Adam by learning rate"
    paper = f"{PAPER}: Madam at 0.01 is good on every task, where SGD's and Adam's best rates differ by task"

    def cells(self, preset: Preset) -> list[Cell]:
        return [
            Cell(
                {"network": task.network, "optimizer": optimizer, "learning rate": lr},
                task.measure,
                [_run(task, optimizer, lr, seed) for seed in range(preset.seeds)],
                published=Published(_PRINTED[task.data][optimizer][i], "published", f"{PAPER}, {_WHAT[task.data]}"),
            )
            for task in (preset.network, preset.decoder)
            for optimizer in _PRINTED["images"]
            for i, lr in enumerate(RATES)
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        by_network = groups(rows, "network")
        for axes, group in zip(panels(figure, list(by_network)), by_network.values()):
            lines(axes, group, "learning rate", "optimizer", published="%" in group[0].measure)
            axes.set(xscale="log", yscale="linear" if "%" in group[0].measure else "log")

    def claims(self, rows: list[Row]) -> list[Claim]:
        found, bests = [], {}
        for optimizer, group in groups(rows, "optimizer").items():
            best = []
            for points in groups(group, "network").values():
                known = [r for r in points if r.values]
                sign = 1 if known and "%" in known[0].measure else -1
                best += [max(known, key=lambda r: sign * r.mean).labels["learning rate"]] if known else []
            bests[optimizer] = best
            text = f"{optimizer}: one learning rate is best on both tasks (best: {', '.join(f'{lr:g}' for lr in best)})"
            same = "holds" if len(set(best)) == 1 else "does not hold"
            found.append(Claim(text, same if len(best) == 2 else "not measured"))
        return found

    def note(self, preset: Preset) -> str:
        tasks = length(preset.network, preset.decoder)
        return f"{tasks}; float32; biases and norms of Madam's runs by SGD or AdamW at their usual rates"


def _run(task: Task, optimizer: str, lr: float, seed: int):
    name = f"{optimizer} {lr:g}"
    if optimizer == "Madam":
        return training(task, recipes.get("madam"), seed, name=name, lr=lr)
    if optimizer == "SGD":
        return training(task, None, seed, name=name, float_optimizer="sgd", float_lr=lr, weight_decay=5e-4)
    return training(task, None, seed, name=name, float_optimizer="adamw", float_lr=lr, weight_decay=0.0)
