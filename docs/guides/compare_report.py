"""Reading the compare report: a network whose datapath is too small in one place, and how the report says so.

Run it: python docs/guides/compare_report.py [FOLDER] (writes report.html, compare.png to FOLDER, runs/compare by
default)
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import lns_sim
from lns_sim import Datapath, recipes
from lns_sim.environment import provenance
from lns_sim.recipes import ModelRecipe
from lns_sim.studies import models
from lns_sim.studies.compare import page, picture
from lns_sim.studies.training import data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/compare")
folder.mkdir(parents=True, exist_ok=True)
digits = data.load("digits")
torch.manual_seed(0)
model = models.build("cnn", digits.input_shape, digits.classes)
x, y = digits.x_train[:64], digits.y_train[:64]

# Everywhere the paper's datapath, but layer 5.0 (the third convolution) accumulates its weight gradient in 12 bits, and
# the unit of the accumulator of layer 2.0's forward pass is so small that it overflows.
base = recipes.lns_madam()
narrow = replace(base, name="narrow", weight_gradient=Datapath(acc_bits=12))
overflowing = replace(base, name="overflowing", forward=Datapath(acc_lsb=8))
recipe = ModelRecipe(base, (("5.0", narrow), ("2.0", overflowing)))
found = lns_sim.compare(model, lambda m: F.cross_entropy(m(x), y), recipe)

# 1. The verdict names the first pass in which the datapath adds more noise than quantization has, and the first
# overflow.
print(found.verdict())

# 2. A row a pass. fake-quant and bit-exact are signal-to-noise ratios against the float32 run, with all that happened
# before; datapath is of this pass alone, its result against the float32 product of the very same codes. To look for:
#
# - datapath far above fake-quant (a margin of 20 dB and more): bits to spare in this pass.
# - datapath below fake-quant: this is where bits are missing. `vanished` tells too coarse a unit, `saturated` too small
#   a range.
# - bit-exact below fake-quant, but a good margin: the noise came from a pass before; look further up.
for row in found.rows:
    mark = "  <- matters" if row.margin < 0 else ""
    print(
        f"{row.layer:4} {row.name:16} fake-quant {row.fake_quant:5.1f} dB, bit-exact {row.bit_exact:5.1f} dB, datapath "
        f"{row.datapath:5.1f} dB, saturated {page.percent(row.saturated)}, vanished {page.percent(row.vanished)}{mark}"
    )

# 3. What became of each tensor. `underflowed` errors call for another format or stochastic underflow; `clipped` weights
# stand at the top of their format.
for layer, codes in found.codes.items():
    for c in codes:
        if c.tensor == "error":
            print(
                f"{layer:4} error: {page.percent(c.underflowed)} underflowed, {page.percent(c.zeros)} zero, "
                f"{c.octaves:.0f} octaves"
            )

# 4. The same as a page (sort by the margin, filter by pass) and a picture.
made = provenance(seed=0, data=digits.describe())  # what they say of how they were made
title = "cnn on digits, 64 samples"
(folder / "report.html").write_text(page.html(found, title, made), encoding="utf-8")
picture.draw(found, folder / "compare.png", title, made)
print(f"wrote {folder / 'report.html'}")

# The same from the shell, with one recipe for all layers:
#
#     lns-sim compare cnn --acc-bits 16 --out runs/compare
