"""Training by several recipes and comparing the outcomes: data, trainer, experiment, checkpoints, report."""

from lns_sim.studies.training.checkpoint import Trained, load
from lns_sim.studies.training.data import Data
from lns_sim.studies.training.experiment import Experiment
from lns_sim.studies.training.trainer import Result, Settings, Trainer

__all__ = ["Data", "Experiment", "Result", "Settings", "Trained", "Trainer", "load"]
