"""Hugging Face's Trainer on a converted model: LNS-Madam as its optimizer, saving, and resuming to the same codes.

Run it: python docs/guides/hugging_face_trainer.py [FOLDER] (needs the libraries transformers and accelerate; downloads
nothing; writes checkpoints to FOLDER, runs/hugging_face by default)
"""

import sys

import torch
import transformers

import lns_sim
from lns_sim.studies.training import data

folder = sys.argv[1] if len(sys.argv) > 1 else "runs/hugging_face"
text = data.load("text", context=32)  # bytes of Python's standard library
samples = [{"input_ids": x, "labels": x} for x in text.x_train[:512]]


def trainer(steps):
    """The same start every time: Trainer's own seed orders the samples, torch's makes the weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    # 1. Convert first. Attention, projections and embeddings then run on the datapath, whoever calls the model.
    model = lns_sim.convert(transformers.LlamaForCausalLM(config), "lns-madam")
    # 2. Weights that are codes learn by LNSMadam; it steps norms by an ordinary optimizer of its own. A scheduler of
    #    torch's scales both learning rates.
    optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 8, float_optimizer="adamw", float_lr=3e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 8))
    arguments = transformers.TrainingArguments(
        folder,
        max_steps=steps,
        save_steps=12,
        per_device_train_batch_size=16,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    return transformers.Trainer(model, arguments, train_dataset=samples, optimizers=(optimizer, scheduler))


# 3. Train, and once more from the checkpoint in the middle: codes, moments and learning rates are in it.
whole = trainer(24)
print(f"loss after 24 steps: {whole.train().metrics['train_loss']:.2f} on average")
resumed = trainer(24)
resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-12")
pairs = list(zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
coded = [(a.codes, b.codes) for a, b in pairs if isinstance(a, lns_sim.LNSWeight)]
print(f"resumed at step 12: {len(coded)} weights, the same codes: {all(torch.equal(a, b) for a, b in coded)}")

# 4. save_pretrained writes float32 values, which any tool reads; converted anew, codes of another scale have the same.
whole.model.save_pretrained(f"{folder}/model")
plain = transformers.LlamaForCausalLM.from_pretrained(f"{folder}/model")
again = lns_sim.convert(plain, "lns-madam")
pairs = zip(whole.model.state_dict().values(), again.state_dict().values(), strict=True)
same = [torch.equal(a.dequantize(), b.dequantize()) for a, b in pairs if isinstance(a, lns_sim.LNSWeight)]
print(f"from save_pretrained: {len(same)} weights, the same values: {all(same)}")
