"""One training run: a model, a recipe, a seed. Deterministic, and resumable between epochs to the same bits."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from threading import Thread

import torch
import torch.nn.functional as F

from lns_sim.checks import check_choice, check_int, check_number
from lns_sim.contract import SEED
from lns_sim.datapaths import Counters
from lns_sim.distributed import local
from lns_sim.nn import LNSWeight, convert
from lns_sim.nn.convert import weights_alone
from lns_sim.ops.observer import observe
from lns_sim.optim import FLOAT_OPTIMIZERS, Batch, ClosureOptimizer, Diverged, LNSMadam
from lns_sim.optim.two_kinds import joined_schedule
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.registry import OPTIMIZERS, OptimizerChoice, OptimizerSettings
from lns_sim.studies import models
from lns_sim.studies.own import named
from lns_sim.studies.training import ranks
from lns_sim.studies.training.batch_norm import in_shares
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.graph import GraphedGradients, kept_between_steps, why_eager
from lns_sim.watching.counting import Totals
from lns_sim.watching.nonfinite import first_nonfinite

SCHEDULES = ("cosine", "linear", "step")
PRECISIONS = {"float32": "fp32", "tf32": "tf32", "bf16": "bf16"}
"""Of products in float32 training, with what its runs are called."""
_MOST_SEED = (1 << 43) - 1  # above 20 bits that count epochs, what torch's generators take


@dataclass(frozen=True)
class Settings:
    """What does not depend on the recipe.

    Attributes:
        model: a name of ``lns_sim.studies.models``, or module:function of one's own.
        epochs, batch_size: as usual.
        micro_batches: equal parts of a batch, each quantized by itself, whose gradients are averaged: one after
            another, which takes the memory of one, or on as many processes. An epoch's samples are a multiple of them.
        lr: of multiplicative updates, in the optimizer's own unit per unit of normalized gradient: LNS-Madam's are
            octaves.
        p_scale: of multiplicative updates: how far weights may grow, in root mean squares of the initial ones.
        turn_below: of LNS-Madam's weights: so many octaves below that root mean square they take the other sign; None:
            never (:class:`lns_sim.optim.LNSMadam`).
        beta1: of LNS-Madam: decay of a running mean of gradients that takes their place; 0: the gradients themselves.
        float_optimizer: "sgd" or "adamw", for float32 weights without an optimizer of their own and for parameters
            that are no weights.
        float_lr, weight_decay: of that optimizer, and float_lr of others that learn by additive updates; momentum:
            of SGD.
        warmup: fraction of all steps in which learning rates rise linearly, before they fall.
        schedule: how they fall: "cosine" or "linear", to zero; "step", by ``decay`` after each third of all steps.
        decay: factor of a step.
        fine_tune: so many of the last epochs quantize weights alone, for recipes with float32 weights; all tests
            quantize what the recipe does. Learning rates rise from zero to half of these steps, and fall to zero again.
        fine_tune_lr: their peak, in units of the learning rate.
        augment: "none", or "crop-flip" (random crops of the image padded by an eighth, horizontal flips).
        counters: count what happens in the datapath (on a GPU this takes some time).
        epoch_samples: so many samples are an epoch, none of them twice before all have been; 0: the training set.
        test_samples: so many of the test set, evenly spread over it, test; 0: all.
        precision: of the products of float32 training: "float32", "tf32" (a GPU's), or "bf16" (torch's autocast, with
            float32 weights).
    """

    model: str = "cnn"
    epochs: int = 20
    batch_size: int = 64
    micro_batches: int = 1
    lr: float = 1 / 16
    p_scale: float = 3.0
    turn_below: float | None = None
    beta1: float = 0.0
    float_optimizer: str = "sgd"
    float_lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.15
    schedule: str = "cosine"
    decay: float = 0.1
    fine_tune: int = 0
    fine_tune_lr: float = 0.01
    augment: str = "none"
    counters: bool = True
    epoch_samples: int = 0
    test_samples: int = 0
    precision: str = "float32"

    def __post_init__(self):
        check_int("epochs", self.epochs, 1, None)
        check_int("batch_size", self.batch_size, 1, None)
        check_int("micro_batches", self.micro_batches, 1, self.batch_size)
        if self.batch_size % self.micro_batches:
            raise ValueError(f"batch_size = {self.batch_size} is no multiple of micro_batches = {self.micro_batches}")
        check_number("lr", self.lr, 0.0, low_open=True)
        check_number("p_scale", self.p_scale, 0.0, low_open=True)
        if self.turn_below is not None:
            check_number("turn_below", self.turn_below, 0.0, low_open=True)
        check_number("beta1", self.beta1, 0.0, 1.0, high_open=True)
        check_number("float_lr", self.float_lr, 0.0, low_open=True)
        check_number("momentum", self.momentum, 0.0, 1.0)
        check_number("weight_decay", self.weight_decay, 0.0)
        check_number("warmup", self.warmup, 0.0, 1.0)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_number("decay", self.decay, 0.0, 1.0, low_open=True)
        if self.schedule != "step" and self.decay != Settings.decay:
            raise ValueError(f"decay = {self.decay:g} has no effect in the schedule {self.schedule}")
        check_int("fine_tune", self.fine_tune, 0, self.epochs)
        check_number("fine_tune_lr", self.fine_tune_lr, 0.0, low_open=True)
        if not self.fine_tune and self.fine_tune_lr != Settings.fine_tune_lr:
            raise ValueError(f"fine_tune_lr = {self.fine_tune_lr:g} has no effect without fine_tune")
        check_choice("augment", self.augment, ("none", "crop-flip"))
        check_choice("float_optimizer", self.float_optimizer, ("sgd", "adamw"))
        check_int("epoch_samples", self.epoch_samples, 0, None)
        check_int("test_samples", self.test_samples, 0, None)
        check_choice("precision", self.precision, PRECISIONS)

    def epoch_of(self, samples: int) -> int:
        """Samples of an epoch of a training set of so many."""
        size = self.epoch_samples or samples
        return size - size % self.micro_batches

    def steps_per_epoch(self, samples: int) -> int:
        """Steps of an epoch of a training set of so many samples."""
        return math.ceil(self.epoch_of(samples) / self.batch_size)

    def run_name(self, recipe: Recipe | ModelRecipe | None) -> str:
        """What tables and files call a recipe's runs: of float32 training, by its precision."""
        return PRECISIONS[self.precision] if recipe is None else recipe.name

    def title(self, data: Data) -> str:
        """What tables and pictures are called."""
        return f"{self.model} on {data.name}, {self.epochs} epoch{'s' * (self.epochs > 1)}"


@dataclass
class Result:
    """What a run reports; one entry per epoch in the lists."""

    recipe: str
    seed: int
    loss: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)  # accuracy in percent, or of text the validation loss
    sample: str = ""  # of text, by the trained model
    seconds: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)  # of training alone, without tests
    weight_bytes: int = 0
    peak_bytes: int = 0  # of GPU memory
    eager: str = ""  # why steps on a GPU were launched operation by operation; empty where a CUDA graph was replayed
    counters: dict[str, dict[str, int]] = field(default_factory=dict)  # by pass

    def total(self, name: str) -> int:
        """A counter summed over the passes."""
        return sum(c.get(name, 0) for c in self.counters.values())


def draw_crops(n: int, height: int, width: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What :func:`crop_flip` takes: shifts by up to an eighth of the size, mirrored with probability 1/2."""
    pads = [max(size // 8, 1) for size in (height, width)]
    top, left = (torch.randint(2 * pad + 1, (n,), generator=generator) for pad in pads)
    columns = left[:, None] + torch.arange(width)
    mirrored = torch.rand(n, generator=generator) < 0.5
    return top[:, None] + torch.arange(height), torch.where(mirrored[:, None], columns.flip(1), columns)


def crop_flip(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W), padded by an eighth of their size, at the given rows (N, H) and columns (N, W)."""
    n, _, h, w = x.shape
    pad_h, pad_w = max(h // 8, 1), max(w // 8, 1)
    padded = F.pad(x, (pad_w, pad_w, pad_h, pad_h))
    picked = padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    """Float32 products in float32 or TF32, as asked; convolutions by whichever algorithm is fastest."""
    matmul, cudnn, tf32 = torch.backends.cuda.matmul, torch.backends.cudnn, precision == "tf32"
    before, matmul.allow_tf32 = matmul.allow_tf32, tf32
    try:
        with cudnn.flags(cudnn.enabled, True, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=tf32):
            yield
    finally:
        matmul.allow_tf32 = before


def check_fit(model: str, data: Data) -> None:
    """Raises ValueError unless there is a model of that name that takes such data; one's own, which is not built here,
    must be where it is said to be (:func:`lns_sim.studies.own.named`).
    """
    if ":" in model:
        named(model)
        return
    if (model in models.DECODERS) != (data.tokenizer is not None):
        raise ValueError(
            f"model {model!r} does not fit the data {data.name!r}: {', '.join(models.DECODERS)} read text, and text "
            "needs one of them"
        )
    with torch.device("meta"):
        models.build(model, data.input_shape, data.classes)


def check_augment(augment: str, data: Data) -> None:
    """Raises ValueError where crops and flips are asked for of what are no images."""
    if augment != "none" and data.x_train.dim() != 4:
        raise ValueError(f"augment {augment!r} is for images (C, H, W), but samples have shape {data.input_shape}")


def check_parts(settings: Settings, data: Data, recipe: Recipe | ModelRecipe | None) -> None:
    """Raises ValueError where a batch cannot be cut into the micro-batches that are asked for, or not be shared by the
    processes that there are, or where more samples are to be tested on than there are.
    """
    if settings.test_samples > len(data.x_test):
        raise ValueError(f"test_samples is {settings.test_samples}, but {data.name} has {len(data.x_test)} to test on")
    parts, processes = settings.micro_batches, ranks.count()
    if parts % processes:
        raise ValueError(f"{processes} processes cannot share micro_batches = {parts}: it must be a multiple")
    if not settings.epoch_of(len(data.x_train)):
        raise ValueError(f"an epoch of {data.name} has fewer samples than micro_batches = {parts}")
    if processes > 1 and recipe is not None and recipe.optimizer is not None:
        raise ValueError(f"the optimizer of {recipe.name} works on whole weights; train it in one process")
    if processes > 1 and (kept := kept_between_steps(recipe)):
        raise ValueError(f"each of {processes} processes would have its own {kept}; train {recipe.name} in one process")
    if len(set(ranks.gathered(data.fingerprint))) > 1:
        raise ValueError("the processes hold different data")


def _made(data: Data, settings: Settings, model: torch.nn.Module | None) -> torch.nn.Module:
    """A copy of the model, or a new one that the settings name, on the CPU."""
    return models.build(settings.model, data.input_shape, data.classes) if model is None else copy.deepcopy(model)


def built(
    data: Data, recipe: Recipe | ModelRecipe | None, settings: Settings, model: torch.nn.Module | None
) -> torch.nn.Module:
    """The same, as a recipe has it.

    Raises:
        ValueError: recipe and model do not fit together.
    """
    made = _made(data, settings, model)
    if recipe is not None and recipe.optimizer is not None:
        prepare = OPTIMIZERS[recipe.optimizer].prepare
        if prepare is not None:
            prepare(made, dict(recipe.optimizer_options))
    return convert(made, recipe)


def _check_own(model: torch.nn.Module, data: Data, device: str, name: str) -> None:
    """Raises ValueError where a model of one's own does not make logits of samples. It may run on that device alone,
    and is not to be trained afterwards, as it may keep something of them.
    """
    x, y = data.x_train[:2].to(device), data.y_train[:2]
    try:
        with torch.no_grad():
            found = logits_of(model.to(device).eval()(x))
    except Exception as error:
        raise ValueError(
            f"the model {name} does not take samples of {data.name}, of shape {data.input_shape}: "
            f"{type(error).__name__}: {error}"
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if not shape or math.prod(shape[:-1]) != y.numel() or shape[-1] < data.classes:
        made = f"a tensor of shape {shape}" if shape else type(found).__name__
        raise ValueError(
            f"the model {name} must make logits of shape {(*y.shape, data.classes)} of {len(x)} samples of "
            f"{data.name}, but makes {made}"
        )


def check_precision(precision: str, recipes: Iterable[Recipe | ModelRecipe | None], device: str) -> None:
    """Raises ValueError where products of a recipe are to be in another precision than float32, or a CPU's in TF32."""
    if precision == "tf32" and torch.device(device).type == "cpu":
        raise ValueError("precision 'tf32' is a GPU's: products on a CPU would be float32's")
    names = [recipe.name for recipe in recipes if recipe is not None]
    if precision != "float32" and names:
        raise ValueError(f"precision {precision!r} is of fp32's products; those of {', '.join(names)} are its own")


def on_meta(model: str, data: Data, samples: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A model by name and the first samples of the training set, without memory: what estimates of cost read."""
    with torch.device("meta"):
        made = models.build(model, data.input_shape, data.classes).eval()
    return made, data.x_train[:samples].to("meta")


def check_seed(seed: int) -> None:
    """Raises ValueError where torch's generators do not hold it."""
    check_int("seed", seed, 0, _MOST_SEED)


def check_runs(
    data: Data,
    recipes: Iterable[Recipe | ModelRecipe | None],
    seeds: Iterable[int],
    settings: Settings,
    device: str,
    model: torch.nn.Module | None = None,
) -> None:
    """Raises ValueError where one of several recipes does not fit the model, or the settings (:func:`check_parts`),
    where a model of one's own does not take the data, or where a seed is none (:func:`check_seed`), before the first
    of them trains.
    """
    for seed in seeds:
        check_seed(seed)
    if model is not None or settings.model not in models.NAMES:
        _check_own(
            _made(data, settings, model), data, device, settings.model if model is None else type(model).__name__
        )
    for recipe in recipes:
        check_parts(settings, data, recipe)
        check_fine_tuned(settings, recipe, built(data, recipe, settings, model))


def check_fine_tuned(settings: Settings, recipe: Recipe | ModelRecipe | None, model: torch.nn.Module) -> None:
    """Raises ValueError where epochs are to quantize weights alone, which exist as nothing but codes."""
    if settings.fine_tune and any(isinstance(p, LNSWeight) for p in model.parameters()):
        raise ValueError(f"fine_tune is for recipes with float32 weights; those of {recipe.name} exist only as codes")


def logits_of(output) -> torch.Tensor:
    """What a model returns, or its ``logits``, as transformers' models call them."""
    return getattr(output, "logits", output)


@contextlib.contextmanager
def drawing(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """Random bits of a micro-batch's own, whoever computes it: torch's generator begins anew, and the streams of
    weights, which move with steps, have another seed within.
    """
    torch.manual_seed(seed)
    weights = filter(lambda w: isinstance(w, LNSWeight) and w.rng is not None, map(local, model.parameters()))
    states = [w.rng[SEED] for w in weights]
    for state in states:
        state += seed
    try:
        yield
    finally:
        for state in states:
            state -= seed


def lr_factor(settings: Settings, steps_per_epoch: int, step: int) -> float:
    """Of the learning rate in a step: a linear rise over a share of all, then the schedule; in fine-tuning a rise and a
    fall.
    """
    last = settings.fine_tune * steps_per_epoch
    total = settings.epochs * steps_per_epoch - last
    if step >= total and last:
        return settings.fine_tune_lr * (1 - abs((2 * (step - total) + 1) / last - 1))
    warm = max(int(settings.warmup * total), 1)
    if step < warm:
        return (step + 1) / warm
    if settings.schedule == "step":
        return settings.decay ** min(3 * step // total, 2)
    done = (step - warm) / max(total - warm, 1)
    return 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def _load_compiler() -> None:
    """Loads what torch's first optimizer loads, in a thread of its own: while it is loaded, torch.fx.wrap keeps all
    frames that led there, and what a trainer's hold with them, until a garbage collection.
    """
    if "torch._dynamo" not in sys.modules:
        thread = Thread(target=import_module, args=("torch._dynamo",))
        thread.start()
        thread.join()


class Trainer:
    """Trains one model by one recipe; of several processes (:mod:`lns_sim.studies.training.ranks`) all of them the same
    one, each its share of the micro-batches, with weights sharded by FSDP2.

    Args:
        data: the data set.
        recipe: None for float32.
        seed: of the initial weights and the order of the data (the same for every recipe).
        settings: everything else.
        device: where to train; the training set is moved there.
        model: float32, of one's own, from samples to logits; a copy of it is trained. None: the one that the settings
            name.

    Raises:
        ValueError: settings, data, recipe or the number of processes do not fit together.
    """

    def __init__(
        self,
        data: Data,
        recipe: Recipe | ModelRecipe | None,
        seed: int,
        settings: Settings,
        device: str = "cpu",
        model: torch.nn.Module | None = None,
    ):
        if model is not None:
            settings = dataclasses.replace(settings, model=type(model).__name__)
        check_augment(settings.augment, data)
        check_precision(settings.precision, [recipe], device)
        check_seed(seed)
        _load_compiler()
        self.data, self.settings, self.seed, self.device = data, settings, seed, torch.device(device)
        self.x_train, self.y_train = data.x_train.to(self.device), data.y_train.to(self.device)
        if self.device.type == "cuda":  # which the first tensor there sets up
            torch.cuda.reset_peak_memory_stats(self.device)
        torch.manual_seed(seed)
        check_parts(settings, data, recipe)
        self.model = built(data, recipe, settings, model)
        self.model.to(self.device)
        if self.device.type == "cuda":
            in_shares(self.model)
        check_fine_tuned(settings, recipe, self.model)
        weight_bytes = sum(
            p.codes.numel() * p.codes.element_size() if isinstance(p, LNSWeight) else p.numel() * p.element_size()
            for p in self.model.parameters()
        )
        if ranks.count() > 1:
            ranks.shard(self.model, self.device)
        self.steps_per_epoch = settings.steps_per_epoch(len(self.x_train))
        choice = None if recipe is None or recipe.optimizer is None else OPTIMIZERS[recipe.optimizer]
        self.optimizer = self._make_optimizer(choice, {} if recipe is None else dict(recipe.optimizer_options))
        if settings.micro_batches > 1 and isinstance(self.optimizer, ClosureOptimizer):
            raise ValueError(f"{type(self.optimizer).__name__} computes gradients itself: micro_batches must be 1")
        schedule = partial(lr_factor, settings, self.steps_per_epoch)  # not of self: a trainer frees its memory at once
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule)
        self._totals = Totals() if settings.counters else None
        self._gradients = None
        if self.device.type == "cuda":
            self._gradients = GraphedGradients(
                list(self.model.parameters()),
                settings.batch_size // settings.micro_batches,
                self._totals,
                why_eager(recipe, settings.model, self.optimizer),
            )
        self.result = Result(settings.run_name(recipe), seed, weight_bytes=weight_bytes)

    def _make_optimizer(self, choice: OptimizerChoice | None, own: dict) -> torch.optim.Optimizer:
        s = self.settings
        options = {"weight_decay": s.weight_decay, **({"momentum": s.momentum} if s.float_optimizer == "sgd" else {})}
        if any(isinstance(local(p), LNSWeight) for p in self.model.parameters()):
            return LNSMadam(
                self.model.parameters(),
                lr=s.lr,
                p_scale=s.p_scale,
                turn_below=s.turn_below,
                beta1=s.beta1,
                float_optimizer=s.float_optimizer,
                float_lr=s.float_lr,
                float_kwargs=options,
            )
        if choice is not None:
            found = OptimizerSettings(
                s.lr, s.float_lr, s.p_scale, s.float_optimizer, options, self.steps_per_epoch, own
            )
            return choice.make(self.model.parameters(), found)
        return FLOAT_OPTIMIZERS[s.float_optimizer](self.model.parameters(), lr=s.float_lr, **options)

    def _autocast(self) -> contextlib.AbstractContextManager:
        """What the model runs in."""
        if self.settings.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            return logits_of(self.model(x)).flatten(0, -2).float()

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.result.test)

    def run(self, on_step=None, on_epoch=None) -> Result:
        """Trains until all epochs are done.

        Args:
            on_step, on_epoch: called with this trainer after each step and each epoch.

        Raises:
            Diverged: see :meth:`run_epoch`.
        """
        while self.epoch < self.settings.epochs:
            self.run_epoch(None if on_step is None else lambda: on_step(self))
            if on_epoch:
                on_epoch(self)
        return self.result

    def run_epoch(self, on_step=None) -> None:
        """One epoch of training and a test; ``on_step()`` is called after each step.

        Raises:
            Diverged: NaN or Inf; the message names layer and pass. Nothing of the epoch is recorded.
        """
        start = time.perf_counter()
        batches = zip(*(d.to(self.device).split(self.settings.batch_size) for d in self._draws()))
        own = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        seeds = torch.randint(1 << 62, (self.steps_per_epoch, self.settings.micro_batches), generator=own).tolist()
        fine_tuning = self.epoch - (self.settings.epochs - self.settings.fine_tune)
        if fine_tuning == 0 and self._gradients is not None:
            self._gradients.forget()
        self.model.train()
        torch.manual_seed((self.seed << 20) + self.epoch)  # what layers draw does not depend on the epochs before
        losses = []
        if self._totals is not None:
            self._totals.take()  # of an epoch that diverged
        with (
            _products(self.settings.precision),
            contextlib.nullcontext() if self._totals is None else observe(self._totals),
            weights_alone(self.model) if fine_tuning >= 0 else contextlib.nullcontext(),
        ):
            if isinstance(self.optimizer, ClosureOptimizer):
                self.optimizer.begin_epoch(self._full_gradient)
            for step, batch in enumerate(batches, start=1):
                check = step % self._check_every == 0 or step == self.steps_per_epoch
                losses.append(self._step(batch, seeds[step - 1], check))
                if on_step:
                    on_step()
        shares = torch.stack(ranks.gathered(torch.stack(losses).cpu()))  # (ranks, steps, micro-batches of each)
        self.result.loss.append(shares.permute(1, 2, 0).to(self.device).flatten().mean().item())
        self.result.epoch_seconds.append(time.perf_counter() - start)
        ranks.share_buffers(self.model)
        self.result.test.append(self.test())
        for totals in ranks.gathered({} if self._totals is None else self._totals.take()):
            for name, counters in totals.items():
                known = Counters(**self.result.counters.get(name, {}))
                self.result.counters[name] = dataclasses.asdict(known + counters)
        self.result.seconds += time.perf_counter() - start
        if self.device.type == "cuda":
            self.result.peak_bytes = max(ranks.gathered(torch.cuda.max_memory_allocated(self.device)))
        if self._gradients is not None:
            self.result.eager = self._gradients.why_eager

    def _draws(self) -> list[torch.Tensor]:
        """An epoch's samples in their order, with their crops: its part of the passes over the training set."""
        samples = len(self.x_train)
        size = self.settings.epoch_of(samples)
        first, skipped = divmod(self.epoch * size, samples)
        passes = [self._pass(number) for number in range(first, first + -(-(skipped + size) // samples))]
        return [torch.cat(parts)[skipped : skipped + size] for parts in zip(*passes)]

    def _pass(self, number: int) -> list[torch.Tensor]:
        """All samples once."""
        generator = torch.Generator().manual_seed((self.seed << 20) + number)
        order = torch.randperm(len(self.x_train), generator=generator)
        crops = self.settings.augment == "crop-flip"
        return [order, *(draw_crops(len(order), *self.x_train.shape[2:], generator) if crops else ())]

    @property
    def _check_every(self) -> int:
        """Steps between two looks for NaN and Inf: on a GPU each one waits for it."""
        return 1 if self.device.type == "cpu" else 50

    def _closure(self, batch: tuple[torch.Tensor, ...]) -> Batch:
        index, *crops = batch
        x, y = self.x_train[index], self.y_train[index]
        if crops:
            x = crop_flip(x, *crops)

        def criterion(output) -> torch.Tensor:
            return F.cross_entropy(logits_of(output).flatten(0, -2), y.flatten())

        return Batch(self.model, x, criterion, self._autocast)

    def _compute(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self._closure(batch)()

    def _gradients_of(self, batch: tuple[torch.Tensor, ...], seeds: list[int]) -> torch.Tensor:
        """The gradients of a batch's mean loss, left in the parameters; the losses of this rank's micro-batches."""
        parts = list(zip(seeds, zip(*(x.tensor_split(len(seeds)) for x in batch))))[ranks.rank() :: ranks.count()]
        losses, sums = [], []
        for seed, part in parts:
            with drawing(self.model, seed) if len(seeds) > 1 else contextlib.nullcontext():
                if self._gradients is None:
                    self.optimizer.zero_grad()
                    losses.append(self._compute(part).detach())
                else:
                    losses.append(self._gradients(self._compute, part))
            if len(parts) > 1:
                gradients = [local(p.grad) for p in self.model.parameters() if p.grad is not None]
                if sums:
                    torch._foreach_add_(sums, gradients)
                else:
                    sums = [g.clone() for g in gradients]
        if sums:
            torch._foreach_div_(sums, float(len(parts)))
            torch._foreach_copy_(gradients, sums)
        return torch.stack(losses)

    def _step(self, batch: tuple[torch.Tensor, ...], seeds: list[int], check: bool) -> torch.Tensor:
        own = isinstance(self.optimizer, ClosureOptimizer)
        if own:
            self.optimizer.zero_grad()
            losses = self.optimizer.step(self._closure(batch)).detach().reshape(1)
        else:
            losses = self._gradients_of(batch, seeds)
        if check:
            self._check_finite(losses, batch)
        if not own:
            self.optimizer.step()
        self.scheduler.step()
        return losses

    def _check_finite(self, losses: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> None:
        """Raises Diverged on all ranks where any has a loss or gradient of NaN or Inf."""
        gradients = [local(p.grad) for p in self.model.parameters() if p.grad is not None]
        if all(ranks.gathered(bool(torch.stack([t.isfinite().all() for t in (losses, *gradients)]).all()))):
            return
        where = None
        if ranks.count() == 1:  # hooks find no layers' gradients in shards
            parts = zip(*(x.tensor_split(self.settings.micro_batches) for x in batch))
            where = next(filter(None, (first_nonfinite(self.model, self._closure(part).loss) for part in parts)), None)
        what = where or "a loss or gradient of the last steps"
        raise Diverged(
            f"{self.result.recipe}, seed {self.seed}: NaN or Inf in epoch {self.epoch + 1}, first in {what}; "
            "lower the learning rate"
        )

    def _full_gradient(self) -> None:
        """Adds the gradient of the mean loss over the training set."""
        for x, y in zip(self.x_train.split(500), self.y_train.split(500)):
            (F.cross_entropy(self._logits(x), y.flatten()) * (len(x) / len(self.x_train))).backward()

    @torch.no_grad()
    def test(self, data: Data | None = None) -> float:
        """Accuracy on the test set, in percent, or of text the mean loss on its validation part, in nats a token.

        Args:
            data: of another test set than the trainer's.
        """
        self.model.eval()
        data = self.data if data is None else data
        text = data.tokenizer is not None
        many, few = len(data.x_test), self.settings.test_samples
        spread = torch.arange(many) if not few else torch.arange(few) * many // few
        size = self.settings.batch_size // self.settings.micro_batches if text else 500  # logits of text are large
        parts, found = spread.split(size), []
        with _products(self.settings.precision):
            for start in range(0, len(parts), ranks.count()):
                own = start + ranks.rank()
                part = parts[min(own, len(parts) - 1)]  # all ranks gather the weights, some perhaps for nothing
                x, y = data.x_test[part], data.y_test[part]
                logits, y = self._logits(x.to(self.device)), y.to(self.device).flatten()
                if own < len(parts):
                    found.append(F.cross_entropy(logits, y, reduction="sum") if text else (logits.argmax(1) == y).sum())
        total = math.fsum(value for values in ranks.gathered([x.item() for x in found]) for value in values)
        return total / data.y_test[spread].numel() * (1 if text else 100)

    @torch.no_grad()
    def sample(self, length: int = 300, temperature: float = 0.8) -> str:
        """Text by the model, a token at a time from the validation part's first eight on; the same for the same
        model.

        Args:
            length: tokens that it adds.
            temperature: by which logits are divided before the softmax that tokens are drawn from.

        Raises:
            ValueError: the data are no text.
        """
        if self.data.tokenizer is None:
            raise ValueError(f"a sample is of text, but the data is {self.data.name!r}")
        self.model.eval()
        generator = torch.Generator().manual_seed(self.seed)
        tokens = self.data.x_test[0, :8].tolist()
        for _ in range(length):
            seen = torch.tensor([tokens[-self.data.input_shape[0] :]], device=self.device)
            odds = torch.softmax(self._logits(seen)[-1].double().cpu() / temperature, 0)
            tokens.append(int(torch.multinomial(odds, 1, generator=generator)))
        return self.data.tokenizer.decode(tokens)

    def state_dict(self) -> dict:
        """What a checkpoint holds, the same from any number of processes; all of them must ask for it."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "result": dataclasses.asdict(self.result),
        }
        return ranks.whole_state(state)

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what :meth:`state_dict` gave, of the same recipe, settings and model, on any device and in any
        number of processes.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: the state is another's; part of it may have been loaded.
        """
        if self._gradients is not None:
            self._gradients.forget()
        self.model.load_state_dict(ranks.sharded_as(state["model"], self.model.state_dict()))
        self.optimizer.load_state_dict(state["optimizer"])
        for p, kept in self.optimizer.state.items():
            kept.update(ranks.sharded_as(kept, dict.fromkeys(kept, p)))
        self.scheduler.load_state_dict(joined_schedule(state["scheduler"], len(self.optimizer.param_groups)))
        self.result = Result(**state["result"])
