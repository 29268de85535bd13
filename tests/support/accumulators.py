"""What the kernels leave in accumulators."""

import numpy as np
import torch

import lns_sim
from lns_sim import LNSTensor


def accumulators_of(a: np.ndarray, b: np.ndarray, d) -> np.ndarray:
    """Of dot products, rows of codes, on a datapath: int64 of shape (rows,)."""
    left, right = (torch.from_numpy(np.ascontiguousarray(x)).to(d.format.dtype) for x in (a, b))
    one = torch.tensor(1.0)
    found = lns_sim.matmul(
        LNSTensor(left[:, None], one, d.format),
        LNSTensor(right[:, :, None], one, d.format),
        datapath=d,
        return_accumulator=True,
    )
    return found.reshape(-1).to(torch.int64).numpy()
