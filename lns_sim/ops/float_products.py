"""Which of torch's own operators sum products of numbers: what a simulation must not leave to them unnoticed."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import torch
from torch import Tensor

# Operators below autograd, by name; those that only move or add numbers are none, nor are elementwise products.
_NAMES = frozenset(
    """
    mm bmm addmm baddbmm addbmm mv addmv dot vdot _grouped_mm _scaled_mm _scaled_grouped_mm _trilinear _sparse_addmm
    _sparse_mm _sparse_mm_reduce_impl sspaddmm hspmm sparse_sampled_addmm _addmm_activation _weight_int8pack_mm
    _weight_int4pack_mm
    convolution convolution_backward convolution_overrideable mkldnn_convolution cudnn_convolution miopen_convolution
    conv_tbc conv_tbc_backward _slow_conv2d_forward conv_depthwise3d _conv_depthwise2d slow_conv3d slow_conv_transpose2d
    slow_conv_transpose3d slow_conv_dilated2d slow_conv_dilated3d deform_conv2d _deform_conv2d_backward
    _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
    _scaled_dot_product_efficient_attention _scaled_dot_product_efficient_attention_backward
    _scaled_dot_product_cudnn_attention _scaled_dot_product_cudnn_attention_backward
    _scaled_dot_product_fused_attention_overrideable _flash_attention_forward _efficient_attention_forward
    flex_attention flex_attention_backward _transformer_encoder_layer_fwd _native_multi_head_attention
    _triton_scaled_dot_attention
    _thnn_fused_lstm_cell _thnn_fused_gru_cell mkldnn_rnn_layer mkldnn_rnn_layer_backward _cudnn_rnn _cudnn_rnn_backward
    _embedding_bag _embedding_bag_forward_only affine_grid_generator fbgemm_linear_fp16_weight
    fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation
    cholesky
    _euclidean_dist _cdist_forward _cdist_backward _pdist_forward _fft_r2c _fft_c2c _fft_c2r
    linalg_matrix_exp linalg_inv_ex _linalg_solve_ex linalg_solve_triangular triangular_solve lu_solve linalg_lu_solve
    linalg_lu_factor_ex linalg_lu _linalg_det _linalg_slogdet linalg_cholesky_ex linalg_qr linalg_householder_product
    _linalg_svd _linalg_eigh linalg_eig _linalg_eigvals linalg_lstsq linalg_ldl_factor_ex linalg_ldl_solve
    cholesky_solve cholesky_inverse ormqr geqrf
    """.split()
)
# Where a matrix product's K is the last dimension of which argument.
_INNER = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}


def name_of(func) -> str:
    """An operator's name without namespace and overload."""
    schema = getattr(func, "_schema", None)
    return schema.name.partition("::")[2] if schema is not None else getattr(func, "__name__", str(func))


def float_product(func, args) -> str | None:
    """The name of an operator that sums products of floating-point numbers; None of others, and of outer products."""
    name = name_of(func)
    if name not in _NAMES or is_ours(func):
        return None
    tensors = [x for x in args if isinstance(x, Tensor)]
    at = _INNER.get(name)
    if (at is not None and args[at].shape[-1] == 1) or not all(x.numel() for x in tensors):  # a sum of one, or of none
        return None
    return name if any(x.is_floating_point() or x.is_complex() for x in tensors) else None


def may_multiply(name: str) -> bool:
    """Does an operator of this name sum products, of some operands?"""
    return name in _NAMES


def namespace_of(func) -> str:
    """The library of an operator; "" of what is none."""
    if isinstance(func, torch._ops.OpOverloadPacket):
        return func._qualified_op_name.partition("::")[0]
    return func.namespace if isinstance(func, torch._ops.OpOverload) else ""


def is_ours(func) -> bool:
    """Is it one of this package's operators?"""
    return namespace_of(func) == "lns_sim"


# Of torch, as far as they multiply nothing or are above; of this package; and of one library whose operators that
# multiply are above.
_KNOWN = frozenset(
    """
    aten prim prims debugprims rngprims c10d c10d_functional _c10d_functional _c10d_functional_autograd _dtensor fsdp
    inductor inductor_prims flex_lib streams profiler export debug_mode_ops quantized_decomposed lns_sim torchvision
    """.split()
) | {""}


def is_foreign(func) -> bool:
    """Is it an operator of another library, which nobody here has looked into?"""
    return namespace_of(func) not in _KNOWN


_running = threading.local()


@contextmanager
def ours():
    """Around a float32 product that a recipe asks for: nobody left it to torch."""
    before, _running.ours = ours_is_running(), True
    try:
        yield
    finally:
        _running.ours = before


def ours_is_running() -> bool:
    """Is an :func:`ours` block open in this thread?"""
    return getattr(_running, "ours", False)
