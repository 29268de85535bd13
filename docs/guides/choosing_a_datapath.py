"""Choosing a datapath: which of its parts a network needs, first from one batch, then from training.

Run it: python docs/guides/choosing_a_datapath.py (about a minute on two cores; needs the library optuna)
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

import lns_sim
from lns_sim import Datapath, recipes
from lns_sim.environment import caption, provenance
from lns_sim.studies import models
from lns_sim.studies.sweep import report, space
from lns_sim.studies.sweep.study import Sweep
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings

digits = data.load("digits")
torch.manual_seed(0)
model = models.build("mlp", digits.input_shape, digits.classes)
x, y = digits.x_train[:256], digits.y_train[:256]

# 1. One batch. `margin` is how far the datapath's own noise lies below that of quantization: below 0 it matters.
print("one batch: smallest margin in dB, and the pass that has it")
for options in (dict(), dict(acc_bits=16), dict(acc_bits=12), dict(lut_entries=1), dict(acc_bits=16, lut_entries=1)):
    pe = Datapath(**options)
    worst = lns_sim.compare(model, lambda m: F.cross_entropy(m(x), y), recipes.lns_madam(datapath=pe)).closest
    price = lns_sim.energy(model, x, recipe=recipes.lns_madam(datapath=pe))  # docs/energy.md
    print(
        f"  {options!s:40} {worst.margin:6.1f}   {worst.name} of layer {worst.layer}; "
        f"{1e12 * price.total() / price.products:.0f} fJ a product"
    )

# 2. Training. A gradient's noise adds up over steps, and weights move: only training tells what accuracy is left. Every
#    combination is a trial; the storage keeps them, so that the same script goes on, and other machines may help.
with tempfile.TemporaryDirectory() as folder:
    sweep = Sweep(
        data=digits,
        settings=Settings(model="mlp", epochs=4),
        base=recipes.lns_madam(),
        space=space.parse(["acc_bits=10,12,16", "lut_entries=1,8"]),
        seeds=[0],
        sampler="grid",
        trials=None,
        storage=str(Path(folder) / "study.journal"),
        name="guide",
        held_out=0.25,  # points are judged on this share of the training set, not on the test set
    )
    sweep.run()
    print("training: the best compromises of accuracy and energy")
    for trial in report.front(sweep):
        (tested,) = trial.user_attrs["tests"]
        print(
            f"  {report.describe(trial.params, sweep.space):28} {trial.values[0]:5.1f} % held out, {tested:5.1f} % of "
            f"the test set, for {trial.values[1]:.3g} {report.costs(sweep)[0]}"
        )
    report.write_csv(sweep, Path(folder) / "sweep.csv")
    # Look at it: runs/sweep/pareto.png of `lns-sim sweep`.
    report.draw(sweep, "mlp on digits", caption(provenance(data=digits.describe())), Path(folder) / "pareto.png")
    print(f"{sweep.finished} trials")

# The same from the shell:
# lns-sim sweep acc_bits=10,12,16 lut_entries=1,8 --model mlp --epochs 4 --held-out 0.25 --seeds 1
