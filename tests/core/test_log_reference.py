"""Log-domain accumulation as the specification has it: its check values, its tables, and what is refused."""

import math
import random

import numpy as np
import pytest
import torch

from lns_sim import LNSFormat, LogDatapath, LogTables, reference, reference_log


@pytest.fixture(scope="module")
def codes():
    random.seed(0)
    a = [random.randrange(256) for _ in range(70)]
    return a, [random.randrange(256) for _ in range(70)]


@pytest.mark.parametrize(
    "options, accumulator",
    [
        ({}, -27146),
        ({"acc_bits": 12}, -1696),
        ({"tables": "shift"}, -27199),
        ({"tables": "coarse:5"}, -27145),
        ({"order": "tree", "vector_size": 32}, -27146),
        ({"acc_bits": 12, "underflow": "saturate", "headroom_bits": 2}, -1888),
        ({"acc_bits": 10, "acc_gamma": 8}, -423),
    ],
)
def test_check_values(codes, options, accumulator):
    assert reference.dot(*codes, LogDatapath(**options)) == accumulator


@pytest.mark.parametrize("acc_bits, octave, offset", [(16, 512, 3969), (12, 32, 249)])
def test_defaults(acc_bits, octave, offset):
    d = LogDatapath(acc_bits=acc_bits)
    assert (d.octave, d.product_offset) == (octave, offset)
    assert (reference_log.acc_gamma(d), reference_log.offset(d)) == (octave, offset)
    assert reference_log.e_limits(d) == d.e_limits


def test_exact_tables_of_12_bits():
    plus, minus = reference_log.tables(LogDatapath(acc_bits=12))
    assert (len(plus), len(minus)) == (209, 210) and plus[:3] == [32, 32, 31] and minus[:4] == [0, 177, 146, 128]
    for d in range(1, 209):
        assert plus[d] == round(32 * math.log2(1 + 2 ** (-d / 32)))
        assert minus[d] == round(-32 * math.log2(1 - 2 ** (-d / 32)))


def test_segments_are_the_floors_of_lines():
    t = LogTables.segments([(0, 8), (3, 4), (7, 0)], [(1, 20), (5, 3), (9, 0)])
    plus, minus = reference_log.tables(LogDatapath(acc_bits=10, acc_gamma=8, tables=t))
    assert plus == [8, 6, 5, 4, 3, 2, 1] and minus == [0, 20, 15, 11, 7, 3, 2, 1]


def test_a_tree_adds_in_pairs():
    d = LogDatapath(order="tree", vector_size=3)
    (tree,) = reference_log.trace([100, 90, 80], [1, 1, 1], d)
    (pair,) = reference_log.trace([100, 90], [1, 1], LogDatapath(vector_size=2))
    first, second, root, acc = tree.sums
    assert first == pair.acc and second == tree.products[2]  # the third lane and the padding
    assert root == acc == tree.acc != pair.acc  # into an empty accumulator


def test_results_are_rounded_once():
    d = LogDatapath()
    low, high = (2 ** ((E + d.product_offset) / d.octave) for E in d.e_limits)
    top = d.e_limits[1] - d.e_limits[0] + 1
    found = reference.read_out(np.array([0, 1, -top]), d, 0)
    assert found.dtype == np.float32 and found.tolist() == pytest.approx([0, low, -high], rel=2**-23)
    assert reference.read_out(np.array([-top]), d, 127) == -np.inf
    assert np.isnan(reference.read_out(np.array([5]), d, None))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"acc_bits": 9}, "leave 2\\^2 steps per octave .* operands have gamma 8: give acc_gamma"),
        ({"acc_gamma": 12}, "acc_gamma must be a power of two from the operands' gamma 8 to 8192, got 12"),
        ({"acc_gamma": 4}, "acc_gamma must be a power of two from the operands' gamma 8"),
        ({"offset": 40000}, "the accumulator cannot hold one product: these have E from"),
        ({"headroom_bits": 65}, "headroom_bits must be between 0 and 64"),
        ({"order": "trees"}, "did you mean 'tree'"),
        ({"overflow": "wrap"}, "overflow must be one of 'saturate'"),
        ({"tables": "shifts"}, "did you mean 'shift'"),
        ({"tables": "segment"}, "tables must be one of 'exact', 'shift', 'coarse:DROP', got 'segment'"),
        ({"tables": "shift:3"}, "tables must be a name"),
        ({"tables": "coarse"}, "tables must be a name, e.g. exact, shift or coarse:5"),
        ({"tables": {"kind": "exact", "drop": 2}}, "exact tables take no drop"),
        ({"tables": {"kind": "exact", "drops": 2}}, "did you mean 'drop'"),
        ({"tables": ([4, 3], [0, -1])}, "minus\\[1\\] must be between 0 and"),
        ({"format": LNSFormat(8, 64), "acc_bits": 12}, "operands have gamma 64"),
        ({"format": LNSFormat(16, 1), "acc_bits": 20}, "products span 536854528 steps .* more than 2\\^23"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LogDatapath(**options)


def test_tables_of_arrays_are_those_of_lists():
    arrays = LogTables.lists(np.array([8, 4]), torch.tensor([0, 9, 5]))
    assert arrays == LogTables.lists([8, 4], [0, 9, 5])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LogTables.lists([8, 4], [0, 9, 5], bound=3), "plus holds 2 entries, fewer than its bound of 3"),
        (lambda: LogTables.lists([8, 4], []), "minus must be a sequence of integers"),
        (lambda: LogTables.segments([(0, 8)], [(0, 9), (4, 0)]), "plus must be two points or more"),
        (lambda: LogTables.segments([(1, 8), (3, 0)], [(0, 9), (4, 0)]), "the first at distance 0"),
        (lambda: LogTables.segments([(0, 8), (3, 0)], [(0, 9), (0, 0)]), "distances of minus must ascend"),
        (lambda: LogTables.coarse(0), "drop must be between 1 and 16"),
    ],
)
def test_tables_that_cannot_be_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
