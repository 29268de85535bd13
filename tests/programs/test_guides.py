"""Every guide runs, and shows what its reader is told to look at."""

import re
import runpy
import sys

import pytest
from command import torchrun
from helpers import ROOT
from tools import require_module

pytestmark = pytest.mark.slow

GUIDES = ROOT / "docs/guides"
SHOWN = {
    "first_steps.py": [r"relative error 0\.0\d", r"327,680 products", r"acc_bits': 16"],
    "transformer.py": [
        r"product, forward, .* 28 accumulator bits",
        r"left in float32: \[\('classifier'",
        r"steps 46 to 60: loss 0\.\d",
    ],
    "choosing_a_datapath.py": [
        r"\{'acc_bits': 12\} +-\d+\.\d +weight_gradient",
        r"acc_bits 12, lut_entries 1 +9\d\.\d %",
        r"6 trials",
    ],
    "compare_report.py": [
        r"first matters in the forward pass of 2\.0",
        r"Accumulators first leave their range in the forward pass of 2\.0",
        r"5\.0  weight_gradient .*<- matters",
        r"wrote .*report\.html",
    ],
    "hugging_face_trainer.py": [
        r"loss after 24 steps: 4\.\d+ on average",
        r"resumed at step 12: 16 weights, the same codes: True",
        r"from save_pretrained: 1[67] weights, the same values: True",
    ],
    "lightning_module.py": [
        r"accuracy by epoch: \d\d\.\d %, .* 9\d\.\d %\n",
        r"resumed after 2 epochs: 3 weights, the same codes: True",
    ],
    "accelerate_loop.py": [r"loss after 40 steps: 0\.\d", r"resumed at step 20: 3 weights, the same codes: True"],
    "your_own_chip.py": [
        r"log-domain, 12 bits, exact tables\n(.*\n)+  +vector 2\n +products -1499\n +sums +1565",
        r"straight lines, a tree\n(.*\n)+ +its noise: [12]\d\.\d dB",
        r"the code of its accumulator -?\d+: \d+",
        r"blocks of 32: 1\d\.\d dB",
    ],
    "block_scales.py": [
        r"shifts of the first row's blocks: \[1, 1, 2",
        r"datapath of 6 bits, gamma 4; on this CPU by \w+",
        r"with blocks: off by 2\d %\n.*one scale: off by 7\d %",
        r"step 60: loss 0\.\d",
    ],
    "vectors_for_rtl.py": [r"200 dot products of 96 codes", r"dot product 7\b", r"the first vector of a"],
}
NEEDS = {
    "transformer.py": ["transformers"],
    "choosing_a_datapath.py": ["optuna"],
    "hugging_face_trainer.py": ["transformers", "accelerate"],
    "lightning_module.py": ["lightning"],
    "accelerate_loop.py": ["accelerate"],
}


def test_every_guide_is_tested():
    assert {p.name for p in GUIDES.glob("*.py")} == set(SHOWN) | {"many_machines.py"}


@pytest.mark.parametrize("name", SHOWN)
def test_guide(name, capsys, tmp_path, monkeypatch):
    for library in NEEDS.get(name, ()):
        require_module(library)
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path)])
    runpy.run_path(str(GUIDES / name), run_name="__main__")
    shown = capsys.readouterr().out
    for pattern in SHOWN[name]:
        assert re.search(pattern, shown), f"{pattern} is not in:\n{shown}"


def test_the_guide_for_many_machines(tmp_path):
    sums = []
    for way in ("ddp", "fsdp"):
        run = torchrun(2, GUIDES / "many_machines.py", way, tmp_path / way)
        assert "the same on all ranks: True" in run.stdout and (tmp_path / way / "checkpoint/.metadata").exists()
        sums.append(re.search(r"2 ranks: loss 0\.\d+, sum of codes (\d+)", run.stdout)[1])
    assert sums[0] == sums[1]
