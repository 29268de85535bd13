"""A training loop of one's own under accelerate: trained, saved, and resumed to the same codes.

Run it: python docs/guides/accelerate_loop.py [FOLDER] (needs the library accelerate; writes a checkpoint to FOLDER,
runs/accelerate by default)
"""

import sys
from pathlib import Path

import accelerate
import torch
import torch.nn.functional as F

import lns_sim
from lns_sim.studies import models
from lns_sim.studies.training import data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/accelerate")
digits = data.load("digits")
accelerator = accelerate.Accelerator()


def made():
    """1. Convert, then make the optimizer of what are now codes, then let accelerate prepare both."""
    torch.manual_seed(0)
    model = lns_sim.convert(models.build("mlp", digits.input_shape, digits.classes), "lns-madam")
    return accelerator.prepare(model, lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16))


def train(model, optimizer, first, last):
    """Steps on batches by number, so that a run that goes on sees those that are left."""
    for step in range(first, last):
        picked = torch.arange(64 * step, 64 * step + 64) % len(digits.x_train)
        x, y = digits.x_train[picked].to(accelerator.device), digits.y_train[picked].to(accelerator.device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
    return loss.item()


# 2. Forty steps; after twenty, save_state writes codes, scales, moments and random states.
whole, optimizer = made()
train(whole, optimizer, 0, 20)
accelerator.save_state(str(folder))
print(f"loss after 40 steps: {train(whole, optimizer, 20, 40):.3f}")

# 3. The rest again, from the file. load_state goes by the order of what was prepared: only what it is to fill.
accelerator.free_memory()
resumed, optimizer = made()
accelerator.load_state(str(folder))
train(resumed, optimizer, 20, 40)
pairs = zip(whole.parameters(), resumed.parameters(), strict=True)
same = [torch.equal(a.codes, b.codes) for a, b in pairs if isinstance(a, lns_sim.LNSWeight)]
print(f"resumed at step 20: {len(same)} weights, the same codes: {all(same)}")
