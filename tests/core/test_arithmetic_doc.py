"""What docs/arithmetic.md states in numbers."""

import re
from pathlib import Path

import pytest

from lns_sim import Datapath, LogDatapath, trace_dot

TEXT = (Path(__file__).parents[2] / "docs/arithmetic.md").read_text()


def test_sections_have_their_numbers():
    headings = re.findall(r"^## (\d)\. (.+)$", TEXT, re.M)
    names = ["Number format", "Quantizer", "Datapath", "Products and passes", "Weights and LNS-Madam", "Random bits"]
    numbered = {**dict(enumerate(names, 1)), 7: "Log-domain accumulation", 8: "Wider linear datapaths"}
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


def test_the_worked_dot_product_of_logarithms():
    rows = re.findall(r"^\| -?\(?(\d+) x (\d+)\)? \| .* = (\d+) \|.*\| (\d+) \|$", TEXT, re.M)
    assert len(rows) == 3
    a, b = [112, 104, 128 | 101], [80, 88, 80]
    assert [(x & 127, y) for x, y in zip(a, b)] == [(int(x), int(y)) for x, y, *_ in rows]
    for v, (*_, product, after) in zip(trace_dot(a, b, LogDatapath(acc_bits=12)).vectors, rows):
        assert (abs(v.products[0]) - 1024, v.acc - 1024) == (int(product), int(after))
