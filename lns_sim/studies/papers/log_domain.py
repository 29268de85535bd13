"""Processing elements that add logarithms (arXiv 1910.09876, 2510.17058) beside the linear one, each in every pass."""

from __future__ import annotations

from typing import Any

from lns_sim import recipes
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.log_datapath import LogDatapath
from lns_sim.studies.energy import energy
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import Run
from lns_sim.studies.papers.presets import Preset, length
from lns_sim.studies.papers.study import Cell, Claim, Row, Study, compared, find, points
from lns_sim.studies.papers.training import searching, training
from lns_sim.studies.training.trainer import on_meta

LINEAR = "linear, 24 bits"
LANES = 32
DATAPATHS: dict[str, AnyDatapath] = {LINEAR: Datapath()} | {
    f"logarithms, {bits} bits, {tables}{called}": LogDatapath(
        acc_bits=bits, tables=tables, vector_size=LANES, order=order
    )
    for order, called in (("sequential", ""), ("tree", f", trees of {LANES}"))
    for bits in (16, 12)
    for tables in ("exact", "shift")
}


def priced(bench: Bench, data: dict, network: str, batch: int, recipe: Any) -> dict[str, str]:
    """Microjoule of training on one sample at the prices of our RTL, and the design that they are of."""
    model, x = on_meta(network, bench.data(**data), batch)
    found = energy(model, x, recipe=recipes.from_plain(recipe), technology="measured")
    design = found.rests_on["LNS"].partition(": ")[2]
    return {"uJ a sample, our RTL at 0.18 um": f"{1000 * found.total() / len(x):.3g}", "design": design}


class LogDomain(Study):
    """Accuracy by the accumulator's bits, the tables and the order of its sums, and energy beside it."""

    name = "log-domain"
    title = "Logarithms added, 8-bit operands"
    paper = (
        "arXiv 1910.09876: 16 bits with tables and bit shifts train to within about 1 % of float32; arXiv 2510.17058: "
        "12 bits with piecewise linear corrections lose little against it (read in their abstracts)"
    )

    def cells(self, preset: Preset) -> list[Cell]:
        task, lr = preset.network, searching(preset, preset.network, recipes.lns_madam_fake_quant())
        found = []
        for name, datapath in DATAPATHS.items():
            recipe = recipes.lns_madam(datapath=datapath)
            trained = [training(task, recipe, seed, name=name, after=lr) for seed in range(preset.seeds)]
            arguments = {
                "data": task.source,
                "network": task.network,
                "batch": task.batch,
                "recipe": recipes.to_plain(recipe),
            }
            beside = Run(f"{task.network}, {name}, energy", priced, arguments, seconds=5)
            found.append(Cell({"sums": name}, task.measure, trained, beside=beside))
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        points(figure.subplots(), rows, "sums")

    def claims(self, rows: list[Row]) -> list[Claim]:
        linear = find(rows, sums=LINEAR)
        return [
            compared(f"{name} lose less than a point against linear sums", find(rows, sums=name), linear, margin=-1)
            for name in DATAPATHS
            if name != LINEAR
        ]

    def note(self, preset: Preset) -> str:
        return (
            f"{length(preset.network)}; LNS-Madam bit-exact, 8-bit operands, gamma 8; logarithms are added lane by "
            f"lane, or in trees of {LANES} lanes; one learning rate, of the fake-quant search"
        )
