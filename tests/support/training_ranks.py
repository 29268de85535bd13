"""Three ranks that train by a Trainer, started by torchrun; what test_training_ranks.py compares with one process.

Argument: the file to which rank 0 writes the trainers' states.
"""

import sys
from dataclasses import replace

import torch

from lns_sim import recipes
from lns_sim.studies.training import Settings, Trainer, ranks
from lns_sim.studies.training.data import Data

# Batches that are not whole, a sample that waits for the next epoch, and fewer batches of tests than ranks.
RECIPE = recipes.lns_madam(stochastic_gradients=True)
SMALL = Settings(model="mlp", epochs=1, batch_size=24, micro_batches=3)
RUNS = {
    "cnn": (RECIPE, replace(SMALL, model="cnn", augment="crop-flip", turn_below=4.0, beta1=0.5)),
    "luq": (recipes.get("luq"), SMALL),
    "fp32": (None, replace(SMALL, float_optimizer="adamw", float_lr=1e-3)),
    "twice": (RECIPE, replace(SMALL, micro_batches=6)),
}


def images() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(70, 3, 8, 8, generator=generator)
    y = torch.arange(70) % 5
    return Data("random", x, y, x[:20], y[:20])


if __name__ == "__main__":
    ranks.join("cpu")
    states = {}
    for name, (recipe, settings) in RUNS.items():
        trainer = Trainer(images(), recipe, 0, settings)
        trainer.run()
        states[name] = trainer.state_dict()
        again = Trainer(images(), recipe, 1, settings)
        again.load_state_dict(states[name])
        assert again.test() == trainer.result.test[-1]
    if ranks.first():
        torch.save(states, sys.argv[1])
    del trainer, again
    ranks.leave()
