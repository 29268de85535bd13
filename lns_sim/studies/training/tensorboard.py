"""Training in TensorBoard: a run each of recipe and seed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lns_sim.studies.training.trainer import Trainer


def check_tensorboard() -> None:
    """Raises ImportError where the library is not installed."""
    if find_spec("tensorboard") is None:
        raise ImportError("events for TensorBoard need the library tensorboard: pip install tensorboard")


class Events:
    """Writes the loss and the test of epochs as events, below a folder, into one each of recipe and seed.

    Raises:
        ImportError: the library tensorboard is not installed.
    """

    def __init__(self, folder: Path):
        check_tensorboard()
        self._folder = folder

    def epoch_ended(self, trainer: Trainer) -> None:
        """Writes the last epoch; what stands there of it and of later ones, from before the run was resumed, goes."""
        from torch.utils.tensorboard import SummaryWriter

        r = trainer.result
        with SummaryWriter(str(self._folder / f"{r.recipe}-seed{r.seed}"), purge_step=trainer.epoch) as writer:
            writer.add_scalar("training loss", r.loss[-1], trainer.epoch)
            writer.add_scalar(trainer.data.measure, r.test[-1], trainer.epoch)
