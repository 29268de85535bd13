"""Several recipes on the same data: each one's learning rate tuned by a search that goes on until the best lies inside,
then trained with every seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from lns_sim import recipes
from lns_sim.checks import check_int, check_number, check_same
from lns_sim.files import write_json
from lns_sim.optim import Diverged
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.registry import OPTIMIZERS
from lns_sim.studies.energy import energy
from lns_sim.studies.energy.technology import NoSuchDesign, Technology
from lns_sim.studies.search import best_of, search
from lns_sim.studies.training.checkpoint import ForeignFile
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.trainer import Result, Settings, Trainer, check_runs, on_meta

Any = Recipe | ModelRecipe | None
_HELD_OUT = "held out"  # ends the key of a run that tunes


def _default(recipe: Any) -> Recipe | None:
    return recipe.default if isinstance(recipe, ModelRecipe) else recipe


def learns_by(recipe: Any) -> str:
    """The setting that its weights learn by: "lr" or "float_lr"."""
    r = _default(recipe)
    if r is None or not (r.coded_weights or r.optimizer):
        return "float_lr"
    return "lr" if r.coded_weights else OPTIMIZERS[r.optimizer].learns_by


def has_codes(recipe: Any) -> bool:
    """Do its weights exist as codes only, which LNS-Madam moves?"""
    r = _default(recipe)
    return r is not None and r.coded_weights


def bits_of(recipe: Any) -> dict[str, str]:
    """Bits of each tensor kind: "8", "32", of weights that are codes also the update format's, "8 (16)"."""
    r = _default(recipe)
    if r is None:
        return dict.fromkeys(("activation", "weight", "error", "gradient"), "32")

    found = {kind: r.quantizer(kind) for kind in ("activation", "weight", "error", "gradient")}
    bits = {kind: "32" if q is None else str(q.bits) for kind, q in found.items()}
    if r.coded_weights:
        bits["weight"] += f" ({r.update.bits})"
    elif r.optimizer is not None and (stored := OPTIMIZERS[r.optimizer].weight_bits) is not None:
        bits["weight"] = str(stored(dict(r.optimizer_options)) if callable(stored) else stored)
    if (few := _product_bits(r)) is not None:
        bits |= {"activation": str(few), "error": str(few)}
    return bits


def _product_bits(r: Recipe | None) -> int | None:
    """Of an optimizer that multiplies in few bits itself."""
    choice = None if r is None or r.optimizer is None else OPTIMIZERS[r.optimizer].product_bits
    return None if choice is None else choice(dict(r.optimizer_options))


def has_hardware(recipe: Any) -> bool:
    """May the energy model know what multiplies? Not block scales, nor an optimizer's own products."""
    r = _default(recipe)
    return _product_bits(r) is None and (r is None or r.block is None)


def format_of(recipe: Any) -> str | None:
    """The energy model's format of its products; None where it has none."""
    if not has_hardware(recipe):
        return None
    r = _default(recipe)
    found = [r and r.quantizer(kind) for kind in ("activation", "weight", "error")]
    names = {"FP32" if q is None else q.hardware for q in found}
    return names.pop() if len(names) == 1 else None


@dataclass
class Entry:
    """One recipe's part.

    Attributes:
        name: of the recipe.
        tuned: result on held-out samples by learning rate; None where training diverged.
        lr: the best of them.
        end: "smallest" or "largest" where the best is that of all tried, so that a better one may lie beyond.
        results: by seed, on the test set; None where training diverged.
    """

    name: str
    tuned: dict[float, float | None]
    lr: float | None
    end: str | None
    results: dict[int, dict | None]


class Contest:
    """Tunes and trains; every finished run is kept, and the same contest goes on from there.

    Args:
        data: the data set.
        names: of recipes, presets or TOML files.
        settings: shared by all, except for the learning rate.
        factors: the learning rates tried are the settings' times these, and more of the same ratio beyond the end where
            the best lies (below, where all diverged), until it lies inside; one alone is taken without a search.
        seeds: of the final runs; tuning takes the first.
        path: JSON file of what is finished.
        device: where to train.
        held_out: share of the training set that tuning is judged on.
        extend: at most so many more rates for a recipe.

    Raises:
        ForeignFile: the file is of another contest; the message says what differs.
        TypeError, ValueError: a factor is no positive number; two recipes of one name, a recipe that does not fit the
            model, or a seed that generators do not hold.
    """

    def __init__(
        self,
        data: Data,
        names: list[str],
        settings: Settings,
        factors: list[float],
        seeds: list[int],
        path: Path,
        device: str = "cpu",
        held_out: float = 0.2,
        extend: int = 6,
    ):
        check_int("extend", extend, 0, None)
        for factor in factors:
            check_number("a factor of the search", factor, 0.0, low_open=True)
        self.data, self.settings, self.seeds, self.path, self.device = data, settings, seeds, path, device
        self.factors, self.extend = sorted(set(factors)), extend
        self.recipes = {name: recipes.get(name) for name in names}
        recipes.check_names(self.recipes.values())
        check_runs(data, self.recipes.values(), seeds, settings, device)
        self.held_out = data.held_out(held_out)
        self.best = max if "%" in data.measure else min
        self.about = {
            "data": data.describe(),
            "settings": asdict(settings),
            "factors": self.factors,
            "seeds": seeds,
            "held out": held_out,
            "recipes": {name: recipes.to_plain(recipe) for name, recipe in self.recipes.items()},
        }
        self._runs: dict[str, dict | None] = {}
        if path.exists():
            try:
                state = json.loads(path.read_text())
                about, self._runs = state["about"], dict(state["runs"])
                for run in filter(None, self._runs.values()):
                    Result(**run)
                known = about["recipes"]
                both = known.keys() & self.recipes.keys()  # a contest may go on with others
                theirs = {**about, "recipes": {name: known[name] for name in both}}
            except OSError:
                raise
            except Exception as error:  # whatever a damaged file makes of itself
                raise ForeignFile(f"{path} holds no runs of a contest, or is damaged") from error
            mine = {**self.about, "recipes": {name: self.about["recipes"][name] for name in both}}
            try:
                check_same(theirs, mine, f"{path} was made with other settings")
            except ValueError as error:
                raise ForeignFile(f"{error}; use another --out, or the same settings") from None
            self.about["recipes"] = {**known, **self.about["recipes"]}

    @property
    def runs(self) -> int:
        """How many there are, as far as is known: a search may go on."""
        factors = self.factors if len(self.factors) > 1 else []
        tuning = {self._key(name, f * self._base(name), self.seeds[0], True) for name in self.recipes for f in factors}
        tuning |= {key for key in self._kept() if key.endswith(_HELD_OUT)}
        return len(tuning) + len(self.recipes) * len(self.seeds)

    @property
    def finished(self) -> int:
        """How many are kept."""
        return len(self._kept())

    def _kept(self) -> list[str]:
        return [key for key in self._runs if key.rsplit("|", 3)[0] in self.recipes]

    def _base(self, name: str) -> float:
        return getattr(self.settings, learns_by(self.recipes[name]))

    @staticmethod
    def _key(name: str, lr: float, seed: int, tuning: bool) -> str:
        return f"{name}|{lr!r}|{seed}|{_HELD_OUT if tuning else 'test'}"

    def run(
        self,
        on_step: Callable[[str, Trainer], None] | None = None,
        on_run: Callable[[str, dict | None], None] | None = None,
    ) -> list[Entry]:
        """Runs what is left.

        Args:
            on_step: called with the recipe's name and the trainer after each step.
            on_run: called after each run with its key, "NAME|LEARNING RATE|SEED|SET", and its result; None: diverged.

        Returns:
            What came of each recipe, in the order of their names.

        Raises:
            OSError: the file of what is finished cannot be written.
        """
        entries = []
        for name in self.recipes:
            tuned = self._tune(name, on_step, on_run)
            lr, end = best_of(tuned, self.best) if tuned else (self.factors[0] * self._base(name), None)
            results = {seed: lr and self._one(name, lr, seed, False, on_step, on_run) for seed in self.seeds}
            entries.append(Entry(name, tuned, lr, end, results))
        return entries

    def _tune(self, name: str, on_step, on_run) -> dict[float, float | None]:
        """Results on held-out samples by learning rate, in the order of the rates; none with a single factor."""
        if len(self.factors) == 1:
            return {}

        def attempt(lr: float) -> float | None:
            result = self._one(name, lr, self.seeds[0], True, on_step, on_run)
            return result and result["test"][-1]

        return search(attempt, self._base(name), self.factors, self.best, self.extend)

    def _one(self, name: str, lr: float, seed: int, tuning: bool, on_step, on_run) -> dict | None:
        key = self._key(name, lr, seed, tuning)
        if key not in self._runs:
            settings = replace(self.settings, **{learns_by(self.recipes[name]): lr})
            trainer = Trainer(self.held_out if tuning else self.data, self.recipes[name], seed, settings, self.device)
            result: Result | None = trainer.result
            try:
                while trainer.epoch < settings.epochs:
                    trainer.run_epoch((lambda: on_step(name, trainer)) if on_step else None)
            except Diverged:
                result = None
            self._runs[key] = result and asdict(result)
            write_json({"about": self.about, "runs": self._runs}, self.path)
            if on_run:
                on_run(key, self._runs[key])
        return self._runs[key]

    def energies(self, technology: str | Technology = "paper") -> dict[str, float | None]:
        """Microjoule of training on one sample, by recipe; None where the technology lacks its format or datapath."""
        model, batch = on_meta(self.settings.model, self.data, self.settings.batch_size)
        # All formats at once.
        of_formats = lru_cache(lambda simulated: energy(model, batch, recipe=simulated, technology=technology))
        found: dict[str, float | None] = {}
        for name, recipe in self.recipes.items():
            kind = format_of(recipe)
            simulated = recipe if kind == "LNS" and _default(recipe).forward is not None else recipes.lns_madam()
            found[name] = None
            with suppress(NoSuchDesign):
                if kind is not None and kind in (priced := of_formats(simulated)).formats:
                    found[name] = 1000 * priced.total(kind) / len(batch)
        return found
