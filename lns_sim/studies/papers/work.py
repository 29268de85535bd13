"""Doing the runs of studies: in this process, or in several that share them and the GPUs."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lns_sim.checks import check_same
from lns_sim.files import write_json
from lns_sim.studies.papers import chosen
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.pool import Pool, Run
from lns_sim.studies.papers.presets import Preset
from lns_sim.studies.papers.study import Study
from lns_sim.studies.training.trainer import check_fit


def pool_of(studies: Sequence[Study], preset: Preset, folder: Path, deadline: float | None = None) -> Pool:
    """All runs of some studies, in the folder that they share: the first seed of all comes first, so that every table
    is there before its spreads are.
    """
    rounds = itertools.zip_longest(*(study.rounds(preset) for study in studies), fillvalue=[])
    return Pool(folder / "runs", (run for each in rounds for runs in each for run in runs), deadline)


def data_of(pool: Pool, bench: Bench) -> dict[str, dict]:
    """What the runs' data sets are, by name.

    Raises:
        ValueError: the user is to name one.
    """
    named = dict.fromkeys(run.arguments["data"]["name"] for run in pool.runs if "data" in run.arguments)
    for name in named:
        if bench.sources[name] is None:
            raise ValueError(f"this preset's studies need --{name}, as lns-sim train takes --data")
    return {name: bench.data(name).describe() for name in named}


def check_networks(pool: Pool, bench: Bench) -> None:
    """Before the first run trains.

    Raises:
        ValueError: a network does not take the data set that runs give it; the message names the data set's option.
    """
    trained = [run.arguments for run in pool.runs if "settings" in run.arguments]
    for model, name in dict.fromkeys((a["settings"]["model"], a["data"]["name"]) for a in trained):
        try:
            check_fit(model, bench.data(name))
        except ValueError as error:
            raise ValueError(f"--{name}: {error}") from None


def check_data(data: dict[str, dict], folder: Path) -> None:
    """Keeps what the folder's runs read, and refuses other data of the same name.

    Raises:
        ValueError: there were others.
    """
    path = folder / "data.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in known.keys() & data.keys():
        check_same(known[name]["fingerprint"], data[name]["fingerprint"], f"the runs in {folder} read other {name}")
    write_json({**known, **data}, path)


def work(
    names: Sequence[str],
    preset: Preset,
    bench: Bench,
    folder: Path,
    workers: int = 1,
    deadline: float | None = None,
    quiet: bool = False,
) -> None:
    """Does what is left of some studies' runs.

    Args:
        names: of studies, see :func:`lns_sim.studies.papers.chosen`.
        preset: their size.
        bench: data and device.
        folder: shared by all workers, of other machines, too.
        workers: processes; on "cuda" spread over the GPUs that are seen.
        deadline: see :class:`lns_sim.studies.papers.pool.Pool`.
        quiet: nothing is told on stderr.
    """
    given = (list(names), preset, bench.sources, bench.device, folder, deadline, quiet)
    if workers == 1:
        _work(*given, threads=None)
        return
    context, started = multiprocessing.get_context("spawn"), []
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
    threads = max(1, (os.cpu_count() or 1) // workers)
    try:
        for i in range(workers):
            if bench.device == "cuda":
                os.environ["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]  # a child reads it as it starts
            started.append(context.Process(target=_work, args=given, kwargs={"threads": threads}))
            started[-1].start()
    finally:
        if bench.device == "cuda":
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if seen:
                os.environ["CUDA_VISIBLE_DEVICES"] = seen
    for process in started:
        process.join()


def _work(
    names: list[str],
    preset: Preset,
    sources: dict[str, str | None],
    device: str,
    folder: Path,
    deadline: float | None,
    quiet: bool,
    threads: int | None,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    pool = pool_of(chosen(names), preset, folder, deadline)

    def told(run: Run, record: dict | None) -> None:
        if record is None:
            said = f"failed, see {pool.path(run, 'failed')}"
        else:
            said = "diverged" if record["result"] is None else f"{record['seconds']:.1f} s"
        print(f"run {pool.finished}/{len(pool.runs)}: {run.name}: {said}", file=sys.stderr, flush=True)

    pool.work(Bench(sources, device), None if quiet else told)
