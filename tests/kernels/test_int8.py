"""Exact products of int8 matrices, and convolutions made of them: against float64, where all such sums are exact."""

import pytest
import torch
import torch.nn.functional as F
from helpers import same

from lns_sim.ops import int8


def integers(*shape):
    return torch.randint(-127, 128, shape).to(torch.int8)


@pytest.mark.parametrize("share", [1 << 28, 1000])
@pytest.mark.parametrize(
    "n, c, o, size, kernel, stride, padding, dilation",
    [
        (3, 4, 5, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
        (2, 16, 16, (8, 8), (3, 3), (2, 2), (1, 1), (1, 1)),
        (2, 3, 7, (11, 9), (3, 2), (2, 3), (0, 2), (2, 1)),
        (2, 8, 8, (7, 7), (1, 1), (2, 2), (0, 0), (1, 1)),
        (1, 3, 40, (12, 12), (7, 7), (2, 2), (3, 3), (1, 1)),
        (2, 2, 3, (5, 5), (1, 1), (1, 1), (2, 2), (1, 1)),
        (1, 2, 2, (5, 6), (3, 3), (4, 4), (3, 3), (1, 1)),
    ],
)
def test_convolutions(share, n, c, o, size, kernel, stride, padding, dilation, monkeypatch, device):
    """All three passes, of the whole batch and a few images at a time."""
    monkeypatch.setattr(int8, "PATCH_BYTES", share)
    geometry = stride, padding, dilation
    x, w = integers(n, c, *size), integers(o, c, *kernel)
    y = F.conv2d(x.double(), w.double(), None, *geometry)
    dy = integers(*y.shape)
    dx = torch.nn.grad.conv2d_input(x.shape, w.double(), dy.double(), *geometry)
    dw = torch.nn.grad.conv2d_weight(x.double(), w.shape, dy.double(), *geometry)
    x, w, dy = (t.to(device) for t in (x, w, dy))
    assert same(int8.forward(x, w, *geometry).double(), y)
    assert same(int8.input_gradient(dy, w, size, *geometry).double(), dx)
    assert same(int8.weight_gradient(dy, x, kernel, *geometry).double(), dw)


@pytest.mark.parametrize("k, largest", [(5, 127), (int8.LONGEST + 9, 127), (600, 248), (40, 127 * 128)])
def test_sums_of_any_length_and_wider_integers(k, largest, device):
    a = torch.randint(-largest, largest + 1, (3, k)).to(torch.int16)
    a[0], b = largest, integers(k, 9)
    b[:, 0] = 127
    expected = a.double() @ b.double()
    assert same(int8.product(int8.MATMUL, a.to(device), b.to(device), (largest, 127), k).double(), expected)
    assert expected[0, 0] == k * largest * 127
    assert int8.product(int8.MATMUL, a, b, (127 * 128 + 1, 127), k) is None


def test_wider_errors_of_convolutions(device):
    """ShiftQuant's: two int8 parts, stacked where each pass takes them."""
    x, w, dy = integers(2, 3, 6, 6), integers(5, 3, 3, 3), torch.randint(-248, 249, (2, 5, 6, 6)).to(torch.int16)
    dx = torch.nn.grad.conv2d_input(x.shape, w.double(), dy.double(), padding=1)
    dw = torch.nn.grad.conv2d_weight(x.double(), w.shape, dy.double(), padding=1)
    one = (1, 1)
    x, w, dy = (t.to(device) for t in (x, w, dy))
    to_input = int8.Form(lambda e, v: int8.input_gradient(e, v, (6, 6), one, one, one), 0)
    to_weight = int8.Form(lambda e, a: int8.weight_gradient(e, a, (3, 3), one, one, one), 1)
    assert same(int8.product(to_input, dy, w, (248, 127), 45).double(), dx)
    assert same(int8.product(to_weight, dy, x, (248, 127), 72).double(), dw)


def test_segments_of_long_sums(device):
    """Of few rows, whatever the batch; of one image whose sum leaves int32, none."""
    assert [int8._segments(*of) for of in ((256, 16), (128, 64), (24, 16), (7, 16), (64, 512))] == [16, 4, 8, 1, 1]
    for n, size in ((24, 6), (7, 6), (1, 380)):
        x, dy = (torch.full((n, c, size, size), 127, dtype=torch.int8) for c in (2, 3))
        x[0, 0, 0, 0] = -3
        dw = torch.nn.grad.conv2d_weight(x.double(), (3, 2, 3, 3), dy.double(), padding=1)
        found = int8.weight_gradient(dy.to(device), x.to(device), (3, 3), (1, 1), (1, 1), (1, 1))
        assert same(found.double(), dw)
