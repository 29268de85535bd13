"""Exporting vectors for RTL: a trained layer's own codes, the accumulators that a design must give, and a mismatch
explained.

Run it: python docs/guides/vectors_for_rtl.py [FOLDER] (writes the vectors to FOLDER, runs/vectors by default)
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lns_sim
from lns_sim import Datapath, recipes
from lns_sim.golden import check_results, make_vectors, read_vectors
from lns_sim.ops.observer import Observer, observe
from lns_sim.studies import models
from lns_sim.studies.training import data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/vectors")
folder.mkdir(parents=True, exist_ok=True)
pe = Datapath(lut_entries=4, acc_bits=20)
digits = data.load("digits")
torch.manual_seed(0)
model = lns_sim.convert(models.build("mlp", digits.input_shape, digits.classes), recipes.lns_madam(datapath=pe))


# 1. Codes as training makes them: an observer sees every product's operands.
class Codes(Observer):
    def product(self, product):
        if product.name == "weight_gradient":
            self.operands = product.operands  # of the first layer in the end, as backward passes end there


with observe(Codes()) as seen:
    F.cross_entropy(model(digits.x_train[:96]), digits.y_train[:96]).backward()
error, x = (
    seen.operands
)  # (out, batch) and (batch, in): a weight's gradient is a row of one along a column of the other
a, b = error.codes[:40].repeat_interleave(5, 0), x.codes.mT[20:25].repeat(40, 1)
np.savez(folder / "layer.npz", a=a.numpy(), b=b.numpy())

# 2. Vectors: hex for $readmemh, and JSON that says how to read it. Corner cases and random codes are other sources.
vectors = make_vectors(pe, f"npz:{folder / 'layer.npz'}", count=len(a), k=a.shape[1], seed=0)
vectors.write(folder)
print(
    f"{len(vectors.a)} dot products of {vectors.a.shape[1]} codes; the first accumulators: "
    f"{vectors.accumulators[:4].tolist()}"
)
print((folder / "a.hex").read_text().splitlines()[0][:16], "... the first vector of a")

# 3. A design's results: here the golden ones with one carry lost, as a test bench would write them.
words = (folder / "acc.hex").read_text().split()
words[7] = f"{int(words[7], 16) ^ 8:05x}"
(folder / "results.hex").write_text("\n".join(words) + "\n")
mismatch = check_results(read_vectors(folder), folder / "results.hex")
print("\n".join(str(mismatch).splitlines()[:3]))
print("...")

# The same from the shell:
#
#     lns-sim vectors golden --source npz:layer.npz --lut-entries 4 --acc-bits 20
#     lns-sim check-vectors golden results.hex
