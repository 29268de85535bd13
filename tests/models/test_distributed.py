"""Training in two processes: the same codes on all ranks, by DDP and by FSDP2, and where sums are exact those of one
process.
"""

import loading_ranks
import pytest
import ranks
import torch
from command import torchrun
from helpers import HAVE_CUDA

import lns_sim

pytestmark = pytest.mark.slow

two_gpus = [
    pytest.mark.gpus,
    pytest.mark.skipif(
        not HAVE_CUDA or torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL gives every rank one of its own"
    ),
]
backends = pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=two_gpus)])


def run_two_ranks(backend, way, model, out) -> dict[str, torch.Tensor]:
    torchrun(2, ranks.__file__, backend, way, model, out)
    saved = torch.load(out, weights_only=True)
    assert saved["ranks"] == 2
    return saved["found"]


@backends
@pytest.mark.parametrize("model", ["cnn", "gpt"])
def test_ddp_and_fsdp_hold_the_same_codes(backend, model, tmp_path):
    """DDP's ranks compare their codes after every step; FSDP2's shards, with stochastic steps, are parts of the
    same.
    """
    replicated = run_two_ranks(backend, "ddp", model, tmp_path / "ddp.pt")
    sharded = run_two_ranks(backend, "fsdp", model, tmp_path / "fsdp.pt")
    assert replicated.keys() == sharded.keys()
    for name, value in replicated.items():
        assert torch.equal(sharded[name], value), name
    torch.manual_seed(0)  # as rank 0 began
    start = lns_sim.convert(ranks.build(model), ranks.RECIPE)
    for name, p in start.named_parameters():
        if isinstance(p, lns_sim.LNSWeight):
            moved = (replicated[name].int() & 32767) - (p.codes.int() & 32767)
            assert (moved != 0).any() and moved.abs().max() <= 4 * (10 * 128 + 1), (
                name
            )  # lr 1/16 of 2048 codes, at most 10 a step


@pytest.fixture
def one_thread():
    """As ranks have: torch's own softmax rounds by its number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@backends
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_ranks_train_as_one_process_with_the_global_batch(backend, way, tmp_path, one_thread):
    both = run_two_ranks(backend, way, "bare", tmp_path / "weights.pt")
    torch.manual_seed(0)
    device = "cpu" if backend == "gloo" else "cuda"
    model = lns_sim.convert(ranks.build("bare"), ranks.RECIPE).to(device)
    batches = (torch.cat([ranks.inputs("bare", step, rank) for rank in range(2)]).to(device) for step in range(4))
    one = ranks.record(model, ranks.train("bare", model, model.parameters(), batches))
    assert both.keys() == one.keys() and any(name.endswith("moment") for name in one)
    for name, value in one.items():
        assert torch.equal(both[name], value), name
    file = tmp_path / "weights.safetensors"
    if file.exists():  # a sharded model's
        fresh = lns_sim.convert(ranks.build("bare"), ranks.RECIPE)
        lns_sim.weights.load(fresh, file)
        assert all(torch.equal(p.codes, one[name]) for name, p in fresh.named_parameters())


def test_a_global_batch_needs_ranks():
    with pytest.raises(RuntimeError, match="init_process_group"), lns_sim.distributed.global_batch():
        pass


def test_weights_are_broadcast_loaded_or_refused():
    torchrun(2, loading_ranks.__file__)
