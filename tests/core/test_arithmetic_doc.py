"""What docs/arithmetic.md states in numbers."""

import re
from pathlib import Path

import pytest
import torch

import lns_sim
from lns_sim import Datapath, LNSFormat, trace_dot

TEXT = (Path(__file__).parents[2] / "docs/arithmetic.md").read_text()


def test_sections_have_their_numbers():
    headings = re.findall(r"^## (\d)\. (.+)$", TEXT, re.M)
    names = ["Number format", "Quantizer", "Datapath", "Products and passes", "Weights and LNS-Madam", "Random bits"]
    numbered = {**dict(enumerate(names, 1)), 8: "Wider linear datapaths"}
    assert [(int(n), name) for n, name in headings] == list(numbered.items())


@pytest.mark.parametrize("column, entries", enumerate((1, 2, 4, 8)))
def test_the_error_of_one_product(column, entries):
    stated = [cell.strip() for cell in re.search(r"^\| error \|(.*)\|$", TEXT, re.M)[1].split("|")]
    d = Datapath(vector_size=1, lut_entries=entries, lut_bits=24, acc_lsb=-3)  # its lanes are exact
    errors = []
    for e in range(1, 128):
        v = trace_dot([e], [1], d).vectors[0]
        errors.append(100 * (v.Y * 2.0 ** (d.lsb - 23) / 2 ** (v.p[0] / 8) - 1))
    assert min(errors) > -1e-5  # upward, but for rounded constants
    assert max(errors) == pytest.approx(float(stated[column].removesuffix("%")), abs=0.005)


def test_the_worked_product_of_block_scales():
    text = TEXT[TEXT.index("### Block scales along K") :]
    f = LNSFormat(4, 1)
    a = lns_sim.quantize(torch.tensor([[8, -3, 0.25, 0.5]]), f, 1, block=2)
    b = lns_sim.quantize(torch.ones(4, 1), f, 0, block=2)
    assert (a.codes.tolist(), a.k.item(), a.shifts.tolist()) == ([[7, 8 | 6, 6, 7]], -4, [[0, 4]]) and b.k == -7
    d = Datapath(f, vector_size=2, acc_lsb=-2, acc_bits=32)
    for name, value in (("Y`", "Y"), ("Z =", "Z"), ("acc`", "acc")):
        row = re.search(rf"^\| `{name}.*\| (\d+) \| (\d+) \|$", text, re.M)
        assert [int(n) for n in row.groups()] == [getattr(v, value) for v in trace_dot(a[0], b[:, 0], d).vectors]
    assert f"`{trace_dot(a[0], b[:, 0], d).accumulator} * 2^(-2 - 4 - 7) = {lns_sim.matmul(a, b, d).item()}`" in text
