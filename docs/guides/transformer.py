"""Training a converted transformer: transformers' own BERT, every product on the 8-bit datapath, attention included.

Run it: python docs/guides/transformer.py (needs the library transformers; downloads nothing)
"""

import dataclasses

import torch
from transformers import BertConfig, BertForSequenceClassification

import lns_sim
from lns_sim import Datapath, recipes

torch.manual_seed(0)
config = BertConfig(
    vocab_size=16,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=12,
    num_labels=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
model = BertForSequenceClassification(config)

# 1. One recipe for everything, a wider accumulator in attention, the classifier in float32.
base = recipes.lns_madam()
wide = Datapath(acc_bits=28)
attention = dataclasses.replace(base, name="wide", forward=wide, input_gradient=wide, weight_gradient=wide)
lns_sim.convert(model, recipes.ModelRecipe(base, (("*.attention", attention), ("classifier", None))))

# 2. What runs where.
ids = torch.randint(2, 16, (32, 12))
report = lns_sim.summary(model, input_ids=ids)
for p in [p for p in report.passes if p.kind == "linear"][:3] + [p for p in report.passes if p.kind == "product"][:3]:
    print(
        f"{p.layer or '(model)'}: {p.kind}, {p.name}, {p.macs:,} MACs on "
        f"{p.datapath.acc_bits if p.datapath else 'no'} accumulator bits"
    )
print(f"left in float32: {report.float_products}")

# 3. A task: does token 2 stand before token 3? LNS-Madam on codes, AdamW on norms, biases and the classifier.
optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16, p_scale=10, float_optimizer="adamw", float_lr=3e-3)


def batch(n):
    """Tokens 2 and 3 at two random places among others."""
    ids = torch.randint(4, 16, (n, 12))
    places = torch.rand(n, 12).topk(2).indices
    ids.scatter_(1, places, torch.tensor([2, 3]).expand(n, 2))
    return ids, (places[:, 0] < places[:, 1]).long()


losses = []
with lns_sim.count() as totals:
    for _ in range(60):
        ids, labels = batch(64)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
for first in range(0, 60, 15):
    print(f"steps {first + 1} to {first + 15}: loss {sum(losses[first : first + 15]) / 15:.3f}")
print({name: f"{c.macs:,} MACs, {c.saturations} saturations" for name, c in totals.items()})

# 4. Weights for other tools, where safetensors is installed: lns_sim.weights.save(model, "bert.safetensors").
