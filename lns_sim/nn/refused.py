"""Functions of torch that sum products, or may for other arguments, and have no simulated form: an error each."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.flex_attention import flex_attention

from lns_sim.nn import functions


def _refuse(name: str, simulation, *args, **kwargs):
    if simulation is None or simulation.recipe is None:
        return NotImplemented
    raise functions.without_simulated_form(name)


_NAMES = {
    torch: (
        *("convolution", "conv_tbc", "cdist", "cov", "corrcoef", "matrix_power", "smm", "hspmm", "sspaddmm", "dsmm"),
        *("pca_lowrank", "svd_lowrank", "lobpcg", "embedding_bag", "bilinear", "_cdist_forward", "matrix_exp"),
        "affine_grid_generator",
        *("quantized_lstm_cell", "quantized_gru_cell", "_sparse_mm", "_euclidean_dist", "stft", "istft"),
        *("inverse", "pinverse", "det", "logdet", "slogdet", "cholesky", "cholesky_solve", "cholesky_inverse", "qr"),
        *("svd", "lu_solve", "triangular_solve", "ormqr", "geqrf", "orgqr", "pdist", "_trilinear"),
    ),
    torch.sparse: ("mm", "addmm", "sampled_addmm", "spsolve"),
    torch.fft: [name for name in torch.fft.__all__ if not name.endswith(("freq", "shift"))],
    torch.linalg: (
        *("matrix_power", "matrix_exp", "inv", "inv_ex", "pinv", "solve", "solve_ex", "solve_triangular", "lstsq"),
        *("det", "slogdet", "cholesky", "cholesky_ex", "qr", "lu", "lu_factor", "lu_solve", "svd", "svdvals", "eig"),
        *("eigh", "eigvals", "eigvalsh", "ldl_factor", "ldl_solve", "householder_product", "cond", "matrix_rank"),
        *("tensorsolve", "tensorinv"),
    ),
    F: ("embedding_bag", "pdist", "pairwise_distance", "affine_grid"),
    Tensor: (
        *("cov", "corrcoef", "matrix_power", "smm", "sspaddmm", "matrix_exp", "stft", "istft", "inverse", "pinverse"),
        *("det", "logdet", "slogdet", "cholesky", "cholesky_solve", "cholesky_inverse", "qr", "svd", "lu_solve"),
        *("triangular_solve", "ormqr", "geqrf", "orgqr"),
    ),
}
for _where, _names in _NAMES.items():
    for _name in _names:
        _function = getattr(_where, _name, None)
        if _function is not None and not functions.is_handled(_function):
            functions.handles(_function)(partial(_refuse, _name))
functions.handles(flex_attention)(partial(_refuse, "flex_attention"))
