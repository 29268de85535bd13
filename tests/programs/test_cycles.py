"""Cycles and memory traffic by hand, the export for Timeloop against its documented schema, and the command."""

import json
import re
import time

import prices
import pytest
import torch
from mapped import work
from tools import require_module
from torch import nn
from typer.testing import CliRunner

import lns_sim
from lns_sim import Datapath
from lns_sim.command.app import app
from lns_sim.studies.energy import Array, timeloop
from lns_sim.watching.passes import Shape

KB = 1024


def test_dataflows_by_hand():
    """Three groups of 32 columns, four vectors a dot product, 40 rows: how often A is read, what else moves."""
    shape = Shape(40, 96, 128)
    local, output, weight = (
        work(shape, dataflow=name) for name in ("local-a-stationary", "output-stationary", "weight-stationary")
    )
    assert local.cycles == output.cycles == weight.cycles == 3 * 4 * 40
    assert local.a_reads == 3 * 4 * 3 * 1024  # rows 0 to 15, 16 to 31, 32 to 39
    assert output.a_reads == 3 * 4 * 40 * 1024 and weight.a_reads == 3 * 4 * 1024
    assert local.b_reads == output.b_reads == weight.b_reads == 3 * 4 * 40 * 32
    assert local.partial_sums == output.partial_sums == 0
    assert weight.partial_sums == 3 * (40 - 16) * (4 - 1) * 32  # beyond the collector, between the vectors
    assert work(Shape(10, 96, 128), dataflow="weight-stationary").partial_sums == 0


def test_fills_of_the_buffers():
    """A's banks keep 4 KB a dot product, buffer B 8 KB: what comes from the global buffer, in the cheaper order."""
    whole = work(Shape(64, 96, 128))  # all of A stays: every row passes by once
    assert (whole.a_fills, whole.b_fills) == (3 * 4 * 1024, 64 * 128)
    columns = work(Shape(64, 96, 1024))  # 16 rows of 1,024 are more than buffer B: each group sees all rows
    assert (columns.a_fills, columns.b_fills) == (3 * 32 * 1024, 3 * 64 * 1024)
    long = work(Shape(64, 96, 8192))  # and a dot product of 8,192 more than a bank: A comes again for every 16 rows
    assert (long.a_fills, long.b_fills) == (4 * 3 * 256 * 1024, 3 * 64 * 8192)


def test_an_array_shares_rows_and_columns():
    shape = Shape(64, 96, 128)
    assert work(shape, pes=3).cycles == 4 * 64 and work(shape, pes=6).cycles == 4 * 32
    uneven = work(shape, pes=5)  # 192 pairs of group and row: 39 for the first four, 36 for the last
    assert uneven.cycles == 4 * 39 and uneven.slots == 64 * 96 * 128
    assert uneven.utilization == pytest.approx(64 * 96 * 128 / (5 * 4 * 39 * 1024))
    # Runs of rows: 39, 25 | 14, 39, 11 | 28, 36, each in chunks of 16.
    assert uneven.a_reads == (3 + 2 + 1 + 3 + 1 + 2 + 3) * 4 * 1024
    assert work(Shape(1, 8, 32), pes=4).utilization == pytest.approx(256 / 4096)
    for array, message in [(dict(pes=0), "pes must be at least 1"), (dict(dataflow="ws"), "dataflow must be one of")]:
        with pytest.raises(ValueError, match=message):
            Array(**array)
    with pytest.raises(TypeError, match="array must be a lns_sim.studies.energy.Array, got 16"):
        lns_sim.cycles(nn.Linear(3, 3), torch.zeros(1, 3), array=16)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got 'resnet50'"):
        lns_sim.cycles("resnet50", torch.zeros(1, 3))


def test_a_layer_by_hand():
    """Bytes by tensor kind, the longer of array and DRAM, and each component's energy."""
    model, x = nn.Linear(64, 32, bias=False), torch.zeros(16, 64, requires_grad=True)
    found = lns_sim.cycles(model, x, clock=0.5)
    forward, weight, error = (
        next(s for s in found.steps if s.name == name) for name in ("forward", "weight_gradient", "input_gradient")
    )
    assert forward.dram == {"activation": 16 * 64 + 16 * 32, "weight": 32 * 64}
    assert error.dram == {"error": 16 * 32 + 16 * 64, "weight": 32 * 64}
    assert weight.dram == {"error": 16 * 32, "activation": 16 * 64, "gradient": 32 * 64}
    assert forward.cycles == 2 * 16 and forward.compute == pytest.approx(32 / 0.5e9)
    moved = sum(forward.dram.values())
    assert forward.memory == pytest.approx(moved / 256e9)
    assert forward.seconds == forward.compute and forward.bound == "array"
    assert forward.energy["DRAM"] == pytest.approx(31200 * moved)
    fills = 2 * 1024 + 16 * 64  # A and B once
    assert forward.global_buffer == moved + 16 * 32 + fills  # in, the result in before it goes out, and on to the PE
    optimizer = found.steps[-1]
    assert optimizer.dram == {"weight": 32 * 64 * 5, "moment": 32 * 64 * 8, "gradient": 32 * 64}
    assert optimizer.bound == "DRAM" and found.seconds == pytest.approx(sum(s.seconds for s in found.steps))
    assert found.total() == pytest.approx(sum(sum(s.energy.values()) for s in found.steps) * 1e-12)
    lanes = lns_sim.energy(model, x)
    assert lanes.total() == pytest.approx(
        sum(mj for name, mj in found.components().items() if name in lanes.components())
    )


def sram(kilobytes):
    """fJ a byte in the paper's process, by the square root of the size."""
    return 10000 / 8 * (kilobytes / 8) ** 0.5 * (16 / 45) * (0.6 / 0.9) ** 2


def test_what_does_not_fit_passes_by_more_often():
    """Of 1,024 x 1,024 weights and 512 x 1,024 activations half a buffer of 256 KB keeps an eighth, or a quarter."""
    x = torch.zeros(512, 1024)
    small = lns_sim.cycles(nn.Linear(1024, 1024, bias=False), x, global_buffer=256 * KB).steps[0].dram
    assert small == {"activation": 512 * KB * 2, "weight": 1024 * KB * 4}  # 4 parts of activations, weights 4 times
    gradient = lns_sim.cycles(nn.Linear(64, 64, bias=False), torch.zeros(32768, 64), global_buffer=256 * KB).steps[1]
    assert gradient.dram == {"error": 2048 * KB, "activation": 2048 * KB, "gradient": 4 * KB}  # the sums stay
    chunks = 4096 // 128
    assert gradient.energy["partial sums"] == pytest.approx(sram(256) * 2 * (chunks - 1) * 64 * 64 * 3)
    large = lns_sim.cycles(nn.Linear(1024, 1024, bias=False), x, global_buffer=4096 * KB).steps[0].dram
    assert large == {"activation": 512 * KB * 2, "weight": 1024 * KB}


def test_memory_of_attention_and_look_ups():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(50, 32)

        def forward(self, tokens):
            x = self.table(tokens)
            return x @ x.mT

    found = lns_sim.cycles(Attention(), torch.zeros(2, 8, dtype=torch.int64))
    steps = {(s.kind, s.name): s for s in found.steps}
    assert steps["embedding", "forward"].dram == {"weight": 2 * 8 * 32, "activation": 2 * 8 * 32 * 4}
    assert steps["embedding", "forward"].products == 0 and steps["embedding", "forward"].bound == "DRAM"
    assert steps["product", "forward"].dram == {"activation": 2 * (2 * 8 * 32) + 2 * 8 * 8}
    assert set(steps["product", "weight_gradient"].dram) == {"error", "activation"}  # of no weight


@pytest.mark.parametrize("weight", [True, False])
def test_memory_of_grouped_products(weight):
    """Matrices that are weights have gradients as codes; computed ones are activations, whose gradients are errors."""

    class Groups(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrices = nn.Parameter(torch.randn(2, 32, 64))

        def forward(self, x):
            b = self.matrices if weight else self.matrices.exp()
            return torch._grouped_mm(x, b, torch.tensor([3, 8], dtype=torch.int32))

    found = lns_sim.cycles(Groups(), torch.zeros(8, 32, requires_grad=True))
    steps = {(s.kind, s.name): s.dram for s in found.steps}
    x, b, y = 8 * 32, 2 * 32 * 64, 8 * 64
    if weight:
        assert steps["grouped", "forward"] == {"activation": x + y, "weight": b}
        assert steps["grouped", "weight_gradient"] == {"error": y, "activation": x, "gradient": b}
    else:
        assert steps["product", "forward"] == {"activation": x + b + y}
        assert steps["product", "weight_gradient"] == {"error": y + b, "activation": x}


def test_at_batch_1_memory_costs_more_than_products():
    """ResNet-50: reading the weights costs more than all products, and Madam's step ten times as much as they."""
    with torch.device("meta"):
        model, x = lns_sim.studies.models.build("resnet50", (3, 224, 224), 1000), torch.zeros(1, 3, 224, 224)
        found, products = lns_sim.cycles(model.eval(), x), lns_sim.energy(model.eval(), x).total()
    weights = sum(found.dram(name)["weight"] for name in ("forward", "input_gradient")) * 31200 * 1e-12
    assert weights > products and sum(found.components("optimizer").values()) > 10 * products


def test_clocks(tmp_path):
    own, x = prices.write(tmp_path / "own.toml"), torch.zeros(1, 32)
    assert lns_sim.cycles(nn.Linear(32, 4), x).clock == 1.05  # the paper's
    assert lns_sim.cycles(nn.Linear(32, 4), x, technology=own).clock == pytest.approx(0.25)  # 4 ns
    with pytest.raises(ValueError, match="own.toml runs at 0.25 GHz at most, got 1"):
        lns_sim.cycles(nn.Linear(32, 4), x, technology=own, clock=1.0)
    slow = prices.write(tmp_path / "slow.toml", prices.PROCESS, prices.lns().replace("period_ns = 4.0", ""))
    with pytest.raises(ValueError, match="slow.toml does not say how fast its hardware is: give a clock"):
        lns_sim.cycles(nn.Linear(32, 4), x, technology=slow)


# What timeloopfe's classes of version 4 know (github.com/Accelergy-Project/timeloopfe; arch.py, problem.py and
# constraints.py of timeloopfe/v4): every key, and those that must be there.
LEAF = {"name", "attributes", "spatial", "constraints", "sparse_optimizations"}
COMPONENT = LEAF | {"class", "subclass", "required_actions", "area_share", "enabled"}
STORAGE = set(
    "datawidth technology n_banks block_size cluster_size width depth entries sizeKB reduction_supported "
    "multiple_buffering min_utilization shared_bandwidth read_bandwidth write_bandwidth network_fill_latency "
    "network_drain_latency per_dataspace_bandwidth_consumption_scale allow_overbooking".split()
)
CONSTRAINTS = {
    "spatial": {"factors", "permutation", "split", "no_reuse", "no_link_transfer"},
    "temporal": {"factors", "permutation", "no_reuse", "rmw_first_update"},
    "dataspace": {"keep", "bypass", "no_coalesce"},
}
BUFFERS, COMPUTE = ("DRAM", "SRAM", "regfile", "smartbuffer", "storage"), ("mac", "intmac", "fpmac", "compute")


def check_leaf(tag, node, loops, tensors):
    assert tag in ("!Component", "!Container") and re.fullmatch(r"\w+", node["name"])
    assert set(node) <= (COMPONENT if tag == "!Component" else LEAF | {"networks"})
    for size in node.get("spatial", {"meshX": 1}).values():
        assert isinstance(size, int) and size > 0
    for kind, parts in node.get("constraints", {}).items():
        assert set(parts) <= CONSTRAINTS[kind]
        assert set(parts.get("keep", [])) | set(parts.get("bypass", [])) <= tensors
        assert all(re.fullmatch(rf"[{loops}](=|<=|>=)\d+", factor) for factor in parts.get("factors", []))
    if tag == "!Component":
        assert any(word in node["class"] for word in (*BUFFERS, *COMPUTE))
        if any(word in node["class"] for word in BUFFERS):
            assert {"datawidth"} <= set(node["attributes"]) <= STORAGE | {"type"}
            assert {"entries", "sizeKB", "depth"} & set(node["attributes"])
            assert node["attributes"]["width"] % node["attributes"]["datawidth"] == 0


def test_the_export_is_what_timeloop_reads(tmp_path):
    yaml = require_module("yaml")

    class Loader(yaml.SafeLoader):
        pass

    for tag in ("!Component", "!Container"):
        Loader.add_constructor(tag, lambda loader, node: (node.tag, loader.construct_mapping(node, deep=True)))
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 36, 10))
    model, x = lns_sim.convert(model, "lns-madam"), torch.zeros(3, 4, 8, 8)
    found = lns_sim.cycles(model, x, array=Array(4))
    count = timeloop.write(lns_sim.summary(model, x), found, "a command", tmp_path)
    problems = [yaml.load(path.read_text(), Loader) for path in sorted((tmp_path / "problems").iterdir())]
    assert count == len(problems) == 5  # the input needs no gradient
    (tmp_path / "problems/mine.yaml").write_text("mine")
    linear = lns_sim.convert(nn.Linear(4, 4), "lns-madam")
    timeloop.write(lns_sim.summary(linear, torch.zeros(2, 4)), found, "another", tmp_path)
    assert len(list((tmp_path / "problems").iterdir())) == 2 + 1  # all but what is not ours
    macs = 0
    for document in problems:
        problem = document["problem"]
        assert set(document) == {"problem"} and set(problem) == {"version", "shape", "instance"}
        assert problem["version"] == 0.4 and set(problem["shape"]) == {"name", "dimensions", "data_spaces"}
        loops = problem["shape"]["dimensions"]
        assert set(problem["instance"]) == set(loops) and all(type(n) is int for n in problem["instance"].values())
        assert [space.get("read_write", False) for space in problem["shape"]["data_spaces"]] == [False, False, True]
        for space in problem["shape"]["data_spaces"]:  # sums of products of loops
            assert all(len(term) == 1 and set(term[0]) <= set(loops) for term in space["projection"])
        macs += torch.tensor(list(problem["instance"].values())).prod().item()
    assert macs == sum(lns_sim.summary(model, x).macs.values())
    architecture = yaml.load((tmp_path / "architecture.yaml").read_text(), Loader)["architecture"]
    assert set(architecture) == {"version", "nodes"} and architecture["version"] == 0.4
    tensors = {space["name"] for space in problems[0]["problem"]["shape"]["data_spaces"]}
    for tag, node in architecture["nodes"]:
        check_leaf(tag, node, "".join(loops), tensors)
    meshes = {node["name"]: node["spatial"]["meshX"] for _, node in architecture["nodes"] if "spatial" in node}
    assert meshes == {"PE": 4, "dot_product": 32, "lane": 32}
    assert architecture["nodes"][-1][1]["class"] == "intmac"
    mixed = lns_sim.convert(nn.Linear(4, 4), lns_sim.recipes.Recipe(forward=Datapath(acc_bits=16)))
    with pytest.raises(ValueError, match="no one architecture"):
        timeloop.write(lns_sim.summary(mixed, torch.zeros(2, 4)), found, "", tmp_path)


def run(*args):
    return CliRunner().invoke(app, ["cycles", *map(str, args)])


def test_the_command(tmp_path):
    require_module("yaml")
    result = run("cnn", "--pes", 2, "--layers", "--timeloop", tmp_path / "yaml", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "of the time is DRAM's" in result.stdout and "optimizer" in result.stdout and "bound by" in result.stdout
    written = json.loads((tmp_path / "cycles.json").read_text())
    assert written["cycles"]["totals"]["cycles"] > 0 and written["cycles"]["array"]["pes"] == 2
    assert "lns_sim" in written["environment"] and written["commands"]
    assert (tmp_path / "roofline.png").stat().st_size > 10_000 and (tmp_path / "yaml/architecture.yaml").exists()
    for args, message in [
        (("cnn", "--clock", 5), "runs at 1.05 GHz at most"),
        (("cnn", "--dataflow", "row"), "dataflow must be one of"),
        (("cnn", "--recipe", "fp32"), "got fp32"),
        (("cnn", "--recipe", "lns-madam-fake-quant"), "multiplied in float32"),
        (("mlp", "--recipe", "fp8"), "is multiplied in float32 by this recipe"),
        (("cnn", "--clock", "nan"), "clock must be a finite number"),
        (("cnn", "--timeloop", tmp_path / "yaml"), "yaml is not empty; choose another folder, or --force"),
    ]:
        result = run(*args, "--out", tmp_path / "more")
        assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1
    again = run("cnn", "--timeloop", tmp_path / "yaml", "--out", tmp_path, "--force")
    assert again.exit_code == 0, again.output


def test_a_batch_of_any_size(tmp_path):
    """What is counted in closed form takes no longer for more samples."""
    begun = time.process_time()
    result = run("gpt", "--batch-size", 10**9, "--dataflow", "weight-stationary", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert time.process_time() - begun < 20
