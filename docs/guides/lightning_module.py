"""A Lightning module around a converted model: trained, saved, and resumed to the same codes.

Run it: python docs/guides/lightning_module.py [FOLDER] (needs the library lightning; writes a checkpoint to FOLDER,
runs/lightning by default)
"""

import sys
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import lns_sim
from lns_sim.studies import models
from lns_sim.studies.training import data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lightning")
digits = data.load("digits")


class Classifier(lightning.LightningModule):
    """1. The model is converted when the module is made, so that a checkpoint finds codes to load."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = lns_sim.convert(models.build("mlp", digits.input_shape, digits.classes), "lns-madam")
        self.correct = []

    def training_step(self, batch, index):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        self.correct.append((self.net(x).argmax(1) == y).float().mean().item())

    def configure_optimizers(self):
        optimizer = lns_sim.optim.LNSMadam(self.parameters(), lr=1 / 16)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)]


def trainer(epochs):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    return lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)


def batches():
    """The same order every time: a loader's generator is no part of a checkpoint."""
    return DataLoader(TensorDataset(digits.x_train, digits.y_train), batch_size=64)


tests = DataLoader(TensorDataset(digits.x_test, digits.y_test), batch_size=450)

# 2. Four epochs at once.
whole = Classifier()
trainer(4).fit(whole, batches(), tests)
print("accuracy by epoch: " + ", ".join(f"{100 * share:.1f} %" for share in whole.correct))

# 3. Two epochs, a checkpoint, and the other two in a module made anew.
half = trainer(2)
half.fit(Classifier(), batches(), tests)
half.save_checkpoint(folder / "half.ckpt")
resumed = Classifier()
trainer(4).fit(resumed, batches(), tests, ckpt_path=folder / "half.ckpt")
pairs = zip(whole.net.parameters(), resumed.net.parameters(), strict=True)
same = [torch.equal(a.codes, b.codes) for a, b in pairs if isinstance(a, lns_sim.LNSWeight)]
print(f"resumed after 2 epochs: {len(same)} weights, the same codes: {all(same)}")
