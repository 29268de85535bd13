"""Batch norms of few channels on a GPU, in shares of the batch at the same time, as ranks do in torch's SyncBatchNorm.

The usual kernels sum a channel in one block of threads: 16 channels keep 16 of a hundred multiprocessors busy. Here
each share of a batch has channels of its own, whose statistics are joined. The kernels are torch's, and results differ
from the usual ones by rounding alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCKS = 512  # channels times shares: four blocks for each multiprocessor of a large GPU


def shares(batch: int, channels: int) -> int:
    """Into how many equal shares a batch is cut: a power of two, 1 where channels are many."""
    n = 1
    while batch % (2 * n) == 0 and 2 * n * channels <= BLOCKS:
        n *= 2
    return n


class _Normalize(torch.autograd.Function):
    """Batch norm in training, of a batch in so many shares; running statistics are updated."""

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps, n):
        mean, invstd = torch.batch_norm_stats(_in_shares(x, n), eps)
        counts = x.new_full((n,), x.numel() // (n * x.shape[1]))
        of_shares = mean.view(n, -1), invstd.view(n, -1)
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, *of_shares, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.shares = n
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)

    @staticmethod
    def backward(ctx, dy):
        x, weight, mean, invstd = ctx.saved_tensors
        n, dy = ctx.shares, dy.contiguous()
        whole = [t.repeat(n) for t in (mean, invstd, weight)]
        found = torch.batch_norm_backward_reduce(_in_shares(dy, n), _in_shares(x, n), *whole, True, True, True)
        sum_dy, sum_dy_xmu, dweight, dbias = torch.stack(found).view(4, n, -1).sum(1)
        count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.int32, device=x.device)
        dx = torch.batch_norm_backward_elemt(dy, x, mean, invstd, weight, sum_dy, sum_dy_xmu, count)
        return dx, dweight, dbias, *[None] * 5


def _in_shares(x: Tensor, n: int) -> Tensor:
    """(N, C, *size) with each share's channels apart: (N / n, n C, *size), of which N is the outer dimension of shares.

    What lies together in memory is image after image: a share is every n-th of them.
    """
    return x.view(x.shape[0] // n, n * x.shape[1], *x.shape[2:])


class BatchNorm2d(nn.BatchNorm2d):
    """The same, in shares where it trains on a GPU and has few channels."""

    def forward(self, x: Tensor) -> Tensor:
        n = shares(*x.shape[:2]) if self.training and x.is_cuda and x.is_contiguous() else 1
        if n == 1:
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        learned = self.weight, self.bias
        return _Normalize.apply(x, *learned, self.running_mean, self.running_var, self.momentum, self.eps, n)


def in_shares(model: nn.Module) -> None:
    """Makes a model's batch norms of images such ones, in place, where they learn and have running statistics."""
    for norm in model.modules():
        known = type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats
        if known and norm.momentum is not None:
            norm.__class__ = BatchNorm2d
