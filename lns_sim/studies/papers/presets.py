"""How large studies are: networks, data, lengths, seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lns_sim.studies.training.trainer import Settings


@dataclass(frozen=True)
class Task:
    """A network and its data.

    Attributes:
        network: a name of ``lns_sim.studies.models``.
        data: "images" or "text".
        epochs, batch: of a training.
        train, test: samples of the data set; None: all.
        searched: training samples of the search of learning rates, one epoch of 4/5 of them.
        augment: of the settings.
        context: of text.
    """

    network: str
    data: str
    epochs: int
    batch: int
    searched: int
    train: int | None = None
    test: int | None = None
    augment: str = "none"
    context: int | None = None

    def settings(self, **changes: Any) -> Settings:
        """Settings of a training: SGD with momentum or, of text, AdamW."""
        text = self.data == "text"
        usual: dict[str, Any] = dict(float_optimizer="adamw", float_lr=0.003, weight_decay=0.1) if text else {}
        shared = dict(model=self.network, epochs=self.epochs, batch_size=self.batch, augment=self.augment)
        return Settings(**{**usual, **shared, "counters": False, **changes})

    @property
    def measure(self) -> str:
        """What a test gives."""
        return "test accuracy %" if self.data == "images" else "validation loss"

    @property
    def source(self) -> dict[str, Any]:
        """Its data, as :meth:`lns_sim.studies.papers.bench.Bench.data` takes it."""
        known = {"name": self.data, "train": self.train, "test": self.test, "context": self.context}
        return {name: value for name, value in known.items() if value is not None}


def length(*tasks: Task) -> str:
    """What a table says of its trainings."""
    found = []
    for t in dict.fromkeys(tasks):
        data = f"{t.train:,} samples of {t.data}" if t.train else t.data
        found.append(f"{t.network} on {data}, {t.epochs} epoch{'s' if t.epochs > 1 else ''} at batch {t.batch}")
    return "; ".join(found)


@dataclass(frozen=True)
class Preset:
    """The size of all studies.

    Attributes:
        name: "small" or "full".
        sources: of images and text, where the user names none; None: the user must.
        network: an image network that many variants are trained of; large: one for the tables of systems; decoder: of
            text.
        seeds: how many.
        factors: of the learning rate, that a search begins with; one: no search.
        convex: epochs of least squares.
        points: of a landscape, along a side.
    """

    name: str
    sources: dict[str, str | None]
    network: Task
    large: Task
    decoder: Task
    seeds: int
    factors: tuple[float, ...]
    convex: int
    points: int


_DIGITS = Task("resnet8", "images", epochs=5, batch=64, searched=640)
PRESETS = {
    "small": Preset(
        "small",
        {"images": "digits", "text": "text"},
        _DIGITS,
        _DIGITS,
        Task("gpt", "text", epochs=1, batch=16, searched=320, train=640, test=64, context=32),
        seeds=2,
        factors=(0.25, 1.0, 4.0),
        convex=10,
        points=9,
    ),
    "full": Preset(
        "full",
        {"images": None, "text": None},
        Task("resnet20", "images", epochs=3, batch=256, searched=12_800, augment="crop-flip"),
        Task("resnet18", "images", epochs=3, batch=256, searched=12_800, augment="crop-flip"),
        Task("gpt", "text", epochs=3, batch=64, searched=4_000, context=128),
        seeds=2,
        factors=(0.25, 1.0, 4.0),
        convex=30,
        points=21,
    ),
}
