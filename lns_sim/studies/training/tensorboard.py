"""Training in TensorBoard: a run each of recipe and seed."""

from __future__ import annotations

from pathlib import Path

from lns_sim.studies.training.trainer import Trainer


class Events:
    """Called after an epoch, writes its loss and test.

    Args:
        folder: of the runs, ``RECIPE-seedN``.
        measure: what a test gives.

    Raises:
        ImportError: the library tensorboard is not installed.
    """

    def __init__(self, folder: Path, measure: str):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("events for TensorBoard need the library tensorboard: pip install tensorboard") from None
        self._make, self._folder, self._measure = SummaryWriter, folder, measure

    def __call__(self, trainer: Trainer) -> None:
        r = trainer.result
        with self._make(str(self._folder / f"{r.recipe}-seed{r.seed}"), purge_step=trainer.epoch) as writer:
            writer.add_scalar("training loss", r.loss[-1], trainer.epoch)
            writer.add_scalar(self._measure, r.test[-1], trainer.epoch)
