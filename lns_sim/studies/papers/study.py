"""A study: the runs behind one table and picture of a paper, what the paper prints, and what holds of it here."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lns_sim.environment import caption, provenance
from lns_sim.files import write_atomically, write_json
from lns_sim.studies.papers.pool import Pool, Run
from lns_sim.studies.papers.presets import Preset
from lns_sim.studies.pictures import finish, pyplot

# Of a number from a paper: read in its text, off a figure of it, or as readers recall it, which nobody checked.
STATUSES = ("published", "read off a figure", "recalled")


@dataclass(frozen=True)
class Published:
    """A number that a paper gives, of its own network, data and length of training."""

    value: float
    status: str
    source: str


@dataclass(frozen=True)
class Cell:
    """One place in a table: runs that differ by their seeds.

    Attributes:
        labels: what it is, by column.
        measure: what its numbers are.
        runs: one a seed.
        read: from a run's result to the number.
        published: the paper's.
        more: from the results to further columns.
        beside: a run that gives further columns itself.
    """

    labels: dict[str, Any]
    measure: str
    runs: Sequence[Run]
    read: Callable[[Any], float] = lambda result: result["test"][-1]
    published: Published | None = None
    more: Callable[[list], dict[str, Any]] = lambda results: {}
    beside: Run | None = None


@dataclass
class Row:
    """What came of a cell.

    Attributes:
        labels, measure, published: the cell's.
        values: of the runs that ended.
        diverged, missing: how many runs did, and were not done.
        more: further columns.
        results: whole, for pictures.
    """

    labels: dict[str, Any]
    measure: str
    values: list[float]
    diverged: int = 0
    missing: int = 0
    published: Published | None = None
    more: dict[str, Any] = field(default_factory=dict)
    results: list = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def shown(self) -> str:
        """Mean and standard deviation."""
        if self.mean is None:
            return "diverged" if self.diverged else "-"
        digits = 2 if "%" in self.measure else 4 if "loss" in self.measure else None
        form = f".{digits}f" if digits is not None else ".3g"
        text = f"{self.mean:{form}}" + (f" ± {self.deviation:{form}}" if self.deviation is not None else "")
        return text + (f" ({self.diverged} diverged)" if self.diverged else "")

    def flat(self) -> dict[str, Any]:
        """The row of a CSV file."""
        p = self.published
        return {
            **self.labels,
            "measure": self.measure,
            "mean": self.mean,
            "deviation": self.deviation,
            "shown": self.shown,
            "seeds": len(self.values),
            "diverged": self.diverged,
            **self.more,
            "published": p and p.value,
            "published status": p and p.status,
            "published source": p and p.source,
        }


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and whether it "holds" here, lies "within the spread", "does not hold" or is "not
    measured"; "both diverged": there is nothing to compare.

    Attributes:
        text, verdict: these.
        seeds: of the row with the fewest; None: it is of no rows that differ by seeds.
    """

    text: str
    verdict: str
    seeds: int | None = None

    @property
    def shown(self) -> str:
        """The verdict, and that a spread is missing where one decides."""
        return self.verdict + (" (1 seed)" if self.seeds == 1 else "")


def compared(text: str, better: Row | None, worse: Row | None, margin: float = 0.0) -> Claim:
    """The claim that one row is better than another: more accurate, or of less loss. What diverged is worse.

    It holds where the difference of means exceeds ``margin`` by more than the larger standard deviation over seeds;
    "within the spread" is a difference from the margin that is no larger than that.
    """
    pair = (better, worse)
    lost = [row is not None and row.mean is None and row.diverged > 0 for row in pair]
    if any(row is None or (row.mean is None and not gone) for row, gone in zip(pair, lost)):
        return Claim(text, "not measured")
    seeds = min(len(row.values) + row.diverged for row in pair)
    if all(lost):
        return Claim(text, "both diverged", seeds)
    if any(lost):
        return Claim(text, "does not hold" if lost[0] else "holds", seeds)
    sign = 1 if "%" in better.measure else -1
    difference = sign * (better.mean - worse.mean) - margin
    spread = max(r.deviation or 0.0 for r in pair)
    if abs(difference) <= spread:
        return Claim(text, "within the spread", seeds)
    return Claim(text, "holds" if difference > 0 else "does not hold", seeds)


def find(rows: Sequence[Row], **labels: Any) -> Row | None:
    """The first row with these labels."""
    return next((r for r in rows if all(r.labels.get(k) == v for k, v in labels.items())), None)


class Study:
    """One table and picture; subclasses say what of.

    Attributes:
        name: of the command and the files.
        title: of the picture and the table.
        paper: what it repeats, and from where.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]

    def cells(self, preset: Preset) -> list[Cell]:
        """The table's places, in their order."""
        raise NotImplementedError

    def draw(self, figure, rows: list[Row]) -> None:
        """Fills an empty figure with the rows of which a run ended or diverged."""
        raise NotImplementedError

    def claims(self, rows: list[Row]) -> list[Claim]:
        """What the paper says, and whether it holds here."""
        return []

    def note(self, preset: Preset) -> str:
        """What a reader has to know of the runs, below the table."""
        return ""

    # ---- What is the same for all.

    def rounds(self, preset: Preset) -> list[list[Run]]:
        """All runs, a list for each seed."""
        cells = self.cells(preset)
        found = [[c.runs[i] for c in cells if i < len(c.runs)] for i in range(max(len(c.runs) for c in cells))]
        return [[*(c.beside for c in cells if c.beside is not None), *found[0]], *found[1:]]

    def runs(self, preset: Preset) -> list[Run]:
        """All runs."""
        return [run for each in self.rounds(preset) for run in each]

    def rows(self, preset: Preset, pool: Pool) -> list[Row]:
        """The table, of what is done."""
        found = []
        for cell in self.cells(preset):
            records = [pool.record(run) for run in cell.runs]
            results = [r["result"] for r in records if r is not None and r["result"] is not None]
            done = sum(r is not None for r in records)
            row = Row(cell.labels, cell.measure, [cell.read(r) for r in results], done - len(results))
            row.missing, row.published = len(records) - done, cell.published
            row.more, row.results = _searched(cell, pool) | (cell.more(results) if results else {}), results
            if cell.beside is not None and (beside := pool.record(cell.beside)) is not None:
                row.more |= beside["result"]
            found.append(row)
        return found

    def write(self, preset: Preset, pool: Pool, data: dict, folder: Path) -> dict:
        """NAME.csv, NAME.json, NAME.png and NAME.svg of what is done.

        Returns:
            What NAME.json holds.
        """
        rows = self.rows(preset, pool)
        runs = [(run, pool.record(run)) for run in self.runs(preset)]
        read = {run.arguments["data"]["name"] for run, _ in runs if "data" in run.arguments}
        data = {name: known for name, known in data.items() if name in read}
        record = provenance(
            study=self.name,
            title=self.title,
            paper=self.paper,
            note=self.note(preset),
            preset=asdict(preset),
            data=data,
            rows=[row.flat() for row in rows],
            claims=[asdict(c) for c in self.claims(rows)],
            runs=[{"name": run.name, "key": run.key, "done": r is not None} for run, r in runs],
        )
        known = dict.fromkeys(c for _, r in runs if r for c in r["commands"])
        record["commands"] = list({**known, **dict.fromkeys(record["commands"])})
        done = [r for _, r in runs if r]
        if done:  # they say where numbers were made; who only draws them may be elsewhere
            gpus = dict.fromkeys(gpu for r in done for gpu in r["environment"]["gpus"])
            record["environment"] = done[0]["environment"] | {"gpus": list(gpus)}
        write_json(record, folder / f"{self.name}.json")
        write_csv(record["rows"], folder / f"{self.name}.csv")
        if any(row.values for row in rows):
            figure = pyplot().figure(figsize=(10, 4.5), layout="constrained")
            self.draw(figure, [row for row in rows if row.values or row.diverged])
            prints = ", ".join(d["fingerprint"] for d in data.values())
            made = {k: v for k, v in record.items() if k != "data"} | {"commands": list(known)}
            made |= {"data": {"fingerprint": prints}} if data else {}
            finish(figure, f"{self.title} ({preset.name})", caption(made), folder / f"{self.name}.png")
        return record


def _searched(cell: Cell, pool: Pool) -> dict[str, Any]:
    """The learning rate that a search found for a cell's runs, and whether it is the last of those tried."""
    search = cell.runs[0].after.get("lr")
    record = search and pool.record(search)
    if not record or record["result"] is None:
        return {}
    lr, end = record["result"]["lr"], record["result"]["end"]
    return {"learning rate": f"{lr:g} ({end} tried)" if end else lr}


def write_csv(rows: list[dict], path: Path) -> None:
    """Rows under all columns that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(lambda file: file.write(text.getvalue().encode()), path)


# ---- Pictures.


def groups(rows: Sequence[Row], label: str) -> dict[Any, list[Row]]:
    """Rows by a label, in order of appearance."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row.labels.get(label), []).append(row)
    return found


def lines(
    axes, rows: Sequence[Row], x: str, by: str | None = None, published: bool = True, names: Sequence[Any] = ()
) -> None:
    """A line with error bars for each value of a label; the paper's numbers dashed, in the same color. What diverged is
    a cross at the upper edge. Values in ``names`` have the colors of their places there.
    """
    drawn = groups(rows, by) if by else {"here": list(rows)}
    color = {name: f"C{i}" for i, name in enumerate(dict.fromkeys([*names, *drawn]))}
    for name, group in drawn.items():
        done, lost = [row for row in group if row.values], [row.labels[x] for row in group if not row.values]
        means, errors = [row.mean for row in done], [row.deviation or 0.0 for row in done]
        places = [row.labels[x] for row in done]
        axes.errorbar(places, means, errors, marker="o", color=color[name], capsize=3, label=str(name))
        if lost:
            edge = dict(transform=axes.get_xaxis_transform(), clip_on=False)
            axes.plot(lost, [1.0] * len(lost), "X", color=color[name], label=f"{name}, diverged", **edge)
        printed = [(row.labels[x], row.published.value) for row in group if row.published]
        if published and printed:
            label = f"{name}, published"
            axes.plot(*zip(*printed), "--", marker="s", mfc="none", color=color[name], label=label)
    axes.set(xlabel=x, ylabel=rows[0].measure)
    axes.grid(alpha=0.3)
    below(axes)


def below(axes) -> None:
    """A legend below the axes, where it hides nothing; none of one line."""
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)


def points(axes, rows: Sequence[Row], label: str) -> None:
    """A point with an error bar for each row, beside its name; the paper's numbers as squares, what diverged as a cross
    at the left edge.
    """
    done = [row for row in rows if row.values]
    places, errors = [rows.index(row) for row in done], [row.deviation or 0.0 for row in done]
    axes.errorbar([row.mean for row in done], places, xerr=errors, fmt="o", color="C0", capsize=3, label="here")
    printed = [(row.published.value, i) for i, row in enumerate(rows) if row.published]
    if printed:
        axes.plot(*zip(*printed), "s", mfc="none", color="C3", label="published")
    lost = [i for i, row in enumerate(rows) if not row.values]
    if lost:
        edge = dict(transform=axes.get_yaxis_transform(), clip_on=False)
        axes.plot([0.0] * len(lost), lost, "X", color="C3", label="diverged", **edge)
    below(axes)
    axes.set_yticks(range(len(rows)), [str(row.labels[label]) for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel=rows[0].measure)
    axes.grid(alpha=0.3)


def panels(figure, drawn: dict[Any, list[Row]], **options) -> list[tuple[Any, list[Row]]]:
    """A place beside each other for every group of rows, with its name as title, and the group."""
    found = figure.subplots(1, len(drawn), squeeze=False, **options)[0]
    for axes, name in zip(found, drawn):
        axes.set_title(str(name), fontsize=10)
    return list(zip(found, drawn.values()))
