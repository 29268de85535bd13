"""Weight files: written and read to the same bits, read by the documented recipe, and errors."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from helpers import ROOT
from tools import require_module
from torch import nn

import lns_sim
from lns_sim import recipes, weights

require_module("safetensors")


def model(**kwargs):
    torch.manual_seed(0)
    net = nn.ModuleDict({"embed": nn.Embedding(7, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 7)})
    net["head"].weight = net["embed"].weight
    return lns_sim.convert(net, recipes.lns_madam(**kwargs))


@pytest.mark.parametrize("options", [{}, dict(update_bits=8)])
def test_written_and_read_to_the_same_bits(tmp_path, options):
    net, other = model(**options), model(**options)
    net["embed"].weight.codes[0, 0] ^= 5
    net["norm"].running_mean += 1
    weights.save(net, tmp_path / "x.safetensors")
    weights.load(other, tmp_path / "x.safetensors")
    assert (
        torch.equal(net["head"].weight.codes, other["head"].weight.codes)
        and other["head"].weight is other["embed"].weight
    )
    assert torch.equal(net["head"].weight.scale, other["head"].weight.scale)
    assert torch.equal(net["norm"].running_mean, other["norm"].running_mean)


def test_other_tools_read_it_as_documented(tmp_path):
    path = tmp_path / "x.safetensors"
    net = model()
    weights.save(net, path)
    scope = {"path": path}
    exec(re.search("```python\n(.*?)```", (ROOT / "docs/weights.md").read_text(), re.S)[1], scope)
    assert list(scope["values"]) == ["embed.weight"]
    np.testing.assert_allclose(scope["values"]["embed.weight"], net["embed"].weight.detach().dequantize(), rtol=1e-6)


def test_errors(tmp_path):
    path, net = tmp_path / "x.safetensors", model()
    weights.save(net, path)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="embed.weight has format .*2048.* in the model, but .*8"):
        weights.save(model(update_bits=8), path)
        weights.load(net, path)
    plain = nn.ModuleDict({"embed": nn.Embedding(7, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 7)})
    with pytest.raises(ValueError, match="embed.weight is float32 in the model"):
        weights.load(plain, path)
    weights.save(lns_sim.convert(nn.ModuleDict({"embed": nn.Embedding(8, 4)}), "lns-madam"), path)
    with pytest.raises(ValueError, match="head.weight is the same as embed.weight in the model, but missing in"):
        weights.load(net, path)
    path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="damaged"):
        weights.load(net, path)
    with pytest.raises(FileNotFoundError):
        weights.load(net, tmp_path / "none")
    assert all(
        torch.equal(getattr(a, "codes", a), getattr(b, "codes", b))
        for a, b in zip(before.values(), net.state_dict().values())
    )


def test_a_flipped_bit_or_a_cut_is_noticed(tmp_path):
    path, net = tmp_path / "x.safetensors", model()
    weights.save(net, path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        for content in (bytes(damaged), whole[:at]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="safetensors"):
                weights.load(net, path)


@pytest.mark.parametrize("record", [{"formats": {}}, {"shared": {}, "formats": 1, "sha256": "0"}, 3, [], None])
def test_a_record_of_another_form_is_damage(tmp_path, record):
    library = require_module("safetensors.torch")
    library.save_file({"a": torch.zeros(2)}, tmp_path / "x", metadata={"lns_sim": json.dumps(record)})
    with pytest.raises(ValueError, match="damaged"):
        weights.load(model(), tmp_path / "x")


def test_a_tied_and_an_untied_model_do_not_read_each_others_files(tmp_path):
    def pair(tied):
        net = nn.ModuleDict({"embed": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
        if tied:
            net["head"].weight = net["embed"].weight
        return lns_sim.convert(net, "lns-madam")

    for tied in (False, True):
        weights.save(pair(tied), tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match="head.weight is .* in the model, but .* in "):
            weights.load(pair(not tied), tmp_path / "x.safetensors")
