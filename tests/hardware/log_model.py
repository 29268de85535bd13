"""Log-domain dot products for many at once, in numpy: :mod:`lns_sim.reference_log`, of which a test makes sure."""

import numpy as np

from lns_sim import reference_log


class Model:
    """Additions and dot products of a datapath. Numbers are integers: 0, or +-(E - E_min + 1)."""

    def __init__(self, d):
        self.d, self.most = d, 2 ** (d.acc_bits - 1) - 1
        plus, minus = reference_log.tables(d)
        self.plus, self.minus = (np.zeros(self.most + 1, np.int64) for _ in range(2))
        for whole, table in ((self.plus, plus), (self.minus, minus)):
            n = min(len(table), len(whole))
            whole[:n] = table[:n]

    def in_range(self, negative, u):
        low = 1 if self.d.underflow == "saturate" else 0
        u = np.where(u < 1, low, np.minimum(u, self.most))
        return np.where(negative, -u, u)

    def add(self, x, y):
        swap = np.abs(y) > np.abs(x)
        larger, smaller = np.where(swap, y, x), np.where(swap, x, y)
        u, distance = np.abs(larger), np.abs(larger) - np.abs(smaller)
        equal = (larger < 0) == (smaller < 0)
        found = self.in_range(larger < 0, u + np.where(equal, self.plus[distance], -self.minus[distance]))
        found = np.where(~equal & (distance == 0), 0, found)
        return np.where(smaller == 0, larger, found)

    def products(self, a, b):
        d, top = self.d, self.d.format.e_max
        e = (a & top) + (b & top)
        u = e * (d.octave // d.format.gamma) - d.product_offset - d.e_limits[0] + 1
        return np.where((a & top) * (b & top) == 0, 0, self.in_range((a ^ b) > top, u))

    def dots(self, a, b):
        """Of rows of codes."""
        p, acc = self.products(a, b), np.zeros(len(a), np.int64)
        if self.d.order == "sequential":
            for lane in p.T:
                acc = self.add(acc, lane)
            return acc
        size = self.d.vector_size
        for start in range(0, p.shape[1], size):
            lanes = list(p[:, start : start + size].T)
            lanes += [np.zeros(len(a), np.int64)] * (2 ** (size - 1).bit_length() - len(lanes))
            while len(lanes) > 1:
                lanes = [self.add(*lanes[i : i + 2]) for i in range(0, len(lanes), 2)]
            acc = self.add(acc, lanes[0])
        return acc
