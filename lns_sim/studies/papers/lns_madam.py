"""LNS-Madam (IEEE TC 2022): base factor, update width, LUT entries, formats."""

from __future__ import annotations

from dataclasses import replace

from lns_sim import recipes
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.quantizers import LNS
from lns_sim.studies.energy import technologies
from lns_sim.studies.energy.paper_prices import conversion
from lns_sim.studies.papers.presets import Preset, Task, length
from lns_sim.studies.papers.study import (
    Cell,
    Claim,
    Published,
    Row,
    Study,
    compared,
    find,
    groups,
    lines,
    panels,
    points,
)
from lns_sim.studies.papers.training import searching, training

PAPER = "LNS-Madam, IEEE TC 2022"
GAMMAS = (1, 2, 4, 8, 16, 32)
WIDTHS = (16, 15, 14, 13, 12, 11, 10)
FEWER = (16, 13, 10)  # of what the paper does not show
ENTRIES = (1, 2, 4, 8)
FAKE_QUANT = recipes.lns_madam_fake_quant


class BaseFactor(Study):
    """Accuracy by gamma, at 8 bits: a small one has few steps an octave, a large one few octaves."""

    name = "lns-madam-gamma"
    title = "LNS-Madam: base factor gamma at 8 bits"
    paper = f"{PAPER}: gamma 8 is best"

    def cells(self, preset: Preset) -> list[Cell]:
        task = preset.network
        lr = searching(preset, task, FAKE_QUANT())
        return [
            Cell(
                {"gamma": gamma, "octaves": round(LNSFormat(8, gamma).e_max / gamma, 2)},
                "test accuracy %",
                [
                    training(task, FAKE_QUANT(gamma=gamma), seed, name=f"gamma {gamma}", after=lr)
                    for seed in range(preset.seeds)
                ],
            )
            for gamma in GAMMAS
        ]

    def draw(self, figure, rows: list[Row]) -> None:
        axes = figure.subplots()
        lines(axes, rows, "gamma")
        axes.set_xscale("log", base=2)
        axes.set_xticks([row.labels["gamma"] for row in rows], [str(row.labels["gamma"]) for row in rows])
        other = axes.twinx()
        other.plot([r.labels["gamma"] for r in rows], [r.labels["octaves"] for r in rows], ":", color="0.5")
        other.set(yscale="log", ylabel="dynamic range, octaves (dotted)")

    def claims(self, rows: list[Row]) -> list[Claim]:
        best = find(rows, gamma=8)
        return [compared(f"gamma 8 is better than {g}", best, find(rows, gamma=g)) for g in GAMMAS if g != 8]

    def note(self, preset: Preset) -> str:
        return f"{length(preset.network)}; fake-quant; one learning rate, searched at gamma 8"


# CIFAR-10, by width of Q_U.
_CIFAR = {
    "Madam": dict(zip(WIDTHS, (93.9, 93.7, 93.5, 93.2, 93.2, 93.4, 93.4))),
    "SGD": dict(zip(WIDTHS, (93.1, 93.0, 92.5, 92.4, 92.3, 92.5, 92.3))),
}


class UpdateWidth(Study):
    """Accuracy by the width of Q_U, with Madam's updates and with SGD's and AdamW's rounded to the same formats."""

    name = "lns-madam-update-width"
    title = "LNS-Madam: width of the update format"
    paper = f"{PAPER}: with fewer bits Madam loses less than SGD (CIFAR-10) and AdamW (SQuAD, F1: 2.4 against 22.1)"

    def cells(self, preset: Preset) -> list[Cell]:
        images, text, found = preset.network, preset.decoder, []
        # What the paper compares comes first.
        pairs = [(images, "Madam"), (images, "SGD"), (text, "Madam"), (text, "AdamW"), (images, "AdamW"), (text, "SGD")]
        for task, optimizer in pairs:
            for bits in WIDTHS if (task, optimizer) in pairs[:4] else FEWER:
                printed = _CIFAR.get(optimizer, {}).get(bits) if task is images else None
                found.append(
                    Cell(
                        {"network": task.network, "optimizer": optimizer, "bits": bits},
                        task.measure,
                        [_update(preset, task, optimizer, bits, seed) for seed in range(preset.seeds)],
                        published=printed and Published(printed, "read off a figure", f"{PAPER}, CIFAR-10"),
                    )
                )
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        drawn = groups(rows, "network")
        printed = [replace(r, values=[r.published.value]) for r in rows if r.published]
        if printed:  # of another network and length: a scale of its own
            drawn["published, CIFAR-10"] = printed
        for axes, group in panels(figure, drawn):
            lines(axes, group, "bits", "optimizer", published=False, names=list(groups(rows, "optimizer")))
            axes.invert_xaxis()

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for network, group in groups(rows, "network").items():
            for other in ("SGD", "AdamW"):
                madam, theirs = (find(group, optimizer=o, bits=10) for o in ("Madam", other))
                found.append(compared(f"{network}: Madam is better than {other} at 10 bits", madam, theirs))
                wide = [find(group, optimizer=o, bits=16) for o in ("Madam", other)]
                if all(r is not None and r.mean is not None for r in (madam, theirs, *wide)):
                    text = f"{network}: from 16 to 10 bits Madam loses less than {other}"
                    lost = [_lost(a, b) for a, b in zip(wide, (madam, theirs))]
                    found.append(compared(text, *lost))
        return found

    def note(self, preset: Preset) -> str:
        return (
            f"{length(preset.network, preset.decoder)}; 8-bit fake-quant products; each optimizer's learning rate "
            "searched at 16 bits; biases and norms are not rounded"
        )


def _lost(before: Row, after: Row) -> Row:
    """The change between two rows, seed by seed, as a row."""
    return replace(after, values=[b - a for a, b in zip(before.values, after.values)])


def _update(preset: Preset, task: Task, optimizer: str, bits: int, seed: int):
    """A training whose weights are kept in the update format of so many bits."""
    if optimizer == "Madam":
        lr = searching(preset, task, FAKE_QUANT())
        name = f"Madam, {bits}-bit updates"
        return training(task, FAKE_QUANT(update_bits=bits), seed, name=name, after=lr)
    recipe = replace(FAKE_QUANT(), name="lns-float32-weights", weight=LNS())
    start = {"SGD": {"images": 0.1, "text": 0.3}, "AdamW": {"images": 0.003, "text": 0.003}}[optimizer][task.data]
    decay = {"SGD": 5e-4, "AdamW": 0.1}[optimizer]
    changes = dict(float_optimizer=optimizer.lower(), float_lr=start, weight_decay=decay)
    lr = searching(preset, task, recipe, name=f"{optimizer}, 16-bit updates", update=_format(16), **changes)
    name = f"{optimizer}, {bits}-bit updates"
    return training(task, recipe, seed, name=name, update=_format(bits), after=lr, **changes)


def _format(bits: int) -> list[int]:
    update = FAKE_QUANT(update_bits=bits).update
    return [update.bits, update.gamma]


class LutEntries(Study):
    """Accuracy by the entries of the conversion's table, bit-exact, and the energy of a product."""

    name = "lns-madam-lut"
    title = "LNS-Madam: entries of the conversion's table"
    paper = f"{PAPER}: with one entry accuracy is that of eight, at two thirds of the conversion's energy"

    def cells(self, preset: Preset) -> list[Cell]:
        lr = searching(preset, preset.network, FAKE_QUANT())
        measured = technologies.get("measured")
        found = []
        for entries in ENTRIES:
            datapath = Datapath(LNSFormat(8, 8), lut_entries=entries)
            recipe, ours = recipes.lns_madam(datapath=datapath), measured.lns(datapath, "forward")
            labels = {
                "LUT entries": entries,
                "conversion fJ (recalled)": conversion(datapath),
                "our RTL, 0.18 um, pJ a product, forward": round(sum(ours.slot.values()) / 1000, 1),
            }
            found.append(
                Cell(
                    labels,
                    "test accuracy %",
                    [
                        training(preset.network, recipe, seed, name=f"LUT {entries}, bit-exact", after=lr)
                        for seed in range(preset.seeds)
                    ],
                )
            )
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        axes = figure.subplots()
        lines(axes, rows, "LUT entries")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ENTRIES, [str(n) for n in ENTRIES])
        low, high = axes.get_ylim()
        axes.set_ylim(low - 1, high + 1)  # a point, which is what the claims are about
        other = axes.twinx()
        other.plot(
            [r.labels["LUT entries"] for r in rows],
            [r.labels["conversion fJ (recalled)"] for r in rows],
            ":",
            color="0.5",
        )
        other.set(ylabel="conversion, fJ a product (dotted; recalled)", ylim=(0, None))

    def claims(self, rows: list[Row]) -> list[Claim]:
        exact = find(rows, **{"LUT entries": 8})
        return [
            compared(
                f"{n} entries lose less than a point against 8", find(rows, **{"LUT entries": n}), exact, margin=-1
            )
            for n in ENTRIES
            if n != 8
        ]

    def note(self, preset: Preset) -> str:
        return f"{length(preset.network)}; every product bit-exact; learning rate of the fake-quant search"


class Formats(Study):
    """8-bit LNS-Madam, FP8 and FP32 on every network and data set."""

    name = "lns-madam-formats"
    title = "LNS-Madam, FP8 and FP32"
    paper = f"{PAPER}: 8-bit LNS-Madam is level with FP32, and above FP8"

    def cells(self, preset: Preset) -> list[Cell]:
        found = []
        for task in dict.fromkeys((preset.network, preset.large, preset.decoder)):
            for name in ("lns-madam", "fp8", "fp32"):
                of_paper = name == "lns-madam" and task.network == "resnet18"
                found.append(
                    Cell(
                        {"network": task.network, "format": name},
                        task.measure,
                        [tuned(preset, task, name, seed) for seed in range(preset.seeds)],
                        published=Published(93.4, "recalled", f"{PAPER}, CIFAR-10") if of_paper else None,
                    )
                )
        return found

    def draw(self, figure, rows: list[Row]) -> None:
        for axes, group in panels(figure, groups(rows, "network")):
            points(axes, group, "format")

    def claims(self, rows: list[Row]) -> list[Claim]:
        found = []
        for network, group in groups(rows, "network").items():
            ours = find(group, format="lns-madam")
            found.append(compared(f"{network}: LNS-Madam is better than FP8", ours, find(group, format="fp8")))
            found.append(compared(f"{network}: LNS-Madam is better than FP32", ours, find(group, format="fp32")))
        return found

    def note(self, preset: Preset) -> str:
        tasks = length(preset.network, preset.large, preset.decoder)
        return f"{tasks}; LNS-Madam bit-exact; each one's learning rate searched"


def tuned(preset: Preset, task: Task, name: str, seed: int):
    """A training by a recipe of that name at its searched learning rate; LNS-Madam's is its fake-quant's."""
    searched = recipes.get("lns-madam-fake-quant" if name == "lns-madam" else name)
    return training(task, recipes.get(name), seed, after=searching(preset, task, searched))
