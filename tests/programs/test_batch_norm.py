"""Batch norms in shares of a batch: the usual results, for all but one block of threads a channel."""

import copy

import pytest
import torch
from helpers import HAVE_CUDA
from torch import nn

from lns_sim.studies.training.batch_norm import BatchNorm2d, in_shares, shares


def test_few_channels_have_many_shares():
    assert shares(256, 16) == 32 and shares(256, 64) == 8 and shares(256, 512) == 1
    assert shares(250, 16) == 2 and shares(33, 16) == 1


def test_which_batch_norms_are_cut_and_a_cpus_results_stay():
    norms = [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.BatchNorm1d(4),
    ]
    model = nn.Sequential(*norms, nn.Sequential(nn.BatchNorm2d(4)))
    before = copy.deepcopy(model[0])
    in_shares(model)
    assert [type(m) is BatchNorm2d for m in (*norms, model[-1][0])] == [True, False, False, False, False, True]
    x = torch.randn(8, 4, 3, 3)
    assert torch.equal(model[0](x), before(x)) and torch.equal(model[0].running_var, before.running_var)


@pytest.mark.gpu
@pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")
@pytest.mark.parametrize("shape", [(256, 16, 32, 32), (96, 32, 8, 8), (12, 64, 5, 3), (9, 16, 4, 4)])
def test_results_are_the_usual_ones(shape):
    torch.manual_seed(0)
    x, dy = torch.randn(shape) * 3 + 1, torch.randn(shape)
    usual = nn.BatchNorm2d(shape[1])
    nn.init.normal_(usual.weight)
    nn.init.normal_(usual.bias)
    own = copy.deepcopy(usual).cuda()
    usual.double()
    in_shares(own)
    found = []
    for norm, like in ((usual, torch.float64), (own, torch.float32)):
        given = x.to(norm.weight.device, like).requires_grad_()
        for _ in range(2):
            norm.zero_grad()
            given.grad = None
            y = norm(given)
            y.backward(dy.to(y))
        gradients = given.grad, norm.weight.grad, norm.bias.grad
        found.append([t.detach().cpu().double() for t in (y, *gradients, *norm.buffers())])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 1e-5 * a.norm()
