"""Damaged files of every kind: one sentence that names the file, never another exception."""

import json
import random

import numpy as np
import pytest
from command import lns_sim

from lns_sim import Datapath
from lns_sim.golden import make_vectors, read_vectors
from lns_sim.npz import read_npz
from lns_sim.recipes import files as recipe_files
from lns_sim.studies.contest import Contest
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings


def sentence(call, *names):
    """The message of what is refused; the call may also go well."""
    try:
        call()
    except ValueError as error:
        message = str(error)
        assert "\n" not in message and all(name in message for name in names), message
        return message
    return None


# ---- Recipes.


@pytest.mark.parametrize(
    "text, message",
    [
        ('preset = "lns-madam"\npreset = "fp8"', "preset"),
        ('[[override]]\nlayers = "a"\nlayers = "b"', "layers"),
        ('[activation]\nrounding = "nearest"\nrounding = "nearest"', "rounding"),
        ("[forward]\n[forward]", "forward"),
        ('forward = { quantizer = "Integer" }', "forward.quantizer is no key here"),
        ('update = { quantizer = "Integer" }', "update.quantizer is no key here"),
        ("update = { format = { bits = 8 } }", "update.format is no key here"),
        ('layers = "a"', "layers is no key here; keys are"),
        ('[[override]]\nlayers = "a"\npreset = "fp8"', "override[0].preset is no key here; keys are"),
        ("a = " + "[" * 100_000, "mine.toml"),
    ],
)
def test_recipe_files(text, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert message in sentence(lambda: recipe_files.load(path), "mine.toml")
    path.write_bytes(b"\xff\xfe")
    assert sentence(lambda: recipe_files.load(path), "mine.toml")


VALUES = ("3", "-1", "1.5", "true", '"x"', '"float32"', "[]", "[1]", "{}", "{ bits = 3 }", '{ quantizer = "FP8" }')
FIELDS = ("format", "rounding", "thresholds", "bits", "gamma", "acc_bits", "lut_constants", "product_range", "acc_lsb")


def test_recipe_files_of_any_values():
    keys = [*recipe_files._FIELDS, "override", "preset"]
    for key in keys:
        for value in VALUES + tuple(f"{{ {field} = {value} }}" for field in FIELDS for value in VALUES):
            sentence(lambda: recipe_files.parse(f"{key} = {value}"))
            sentence(lambda: recipe_files.parse(f'[[override]]\nlayers = "a"\n{key} = {value}'))


# ---- Arrays.


def arrays(**changes):
    x, y = np.zeros((4, 3), np.float32), np.arange(4)
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "a": y[None], "b": y[None], **changes}


def damaged(good: bytes):
    yield from (b"", b"PK\x03\x04 no zip file", b"\x93NUMPY", b"[1, 2]")
    for seed in range(200):
        rng, other = random.Random(seed), bytearray(good)
        for _ in range(rng.randint(1, 20)):
            other[rng.randrange(len(other))] = rng.randrange(256)
        yield bytes(other[: rng.randrange(len(other))] if seed % 3 == 0 else other)


def test_npz(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays())
    for contents in damaged(path.read_bytes()):
        path.write_bytes(contents)
        sentence(lambda: data.load(f"npz:{path}"), "mine.npz")
        sentence(lambda: make_vectors(Datapath(), f"npz:{path}"), "mine.npz")
    np.savez(path, **arrays(a=np.array([None])))
    assert "plain arrays" in sentence(lambda: read_npz(path, ("a",)), "mine.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert sentence(lambda: read_npz(tmp_path / "one.npy", ("a",)), "one.npy")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "none.npz", ("a",))


@pytest.mark.parametrize(
    "changes",
    [
        {"x_train": np.zeros(4)},
        {"x_train": np.zeros((), np.float32)},
        {"x_train": np.array([["a"]] * 4)},
        {"y_train": np.zeros((4, 2))},
        {"y_train": np.array(["a"] * 4)},
        {"y_train": np.array([0, 1, -1, 2])},
        {"y_train": np.array([0, 1, 0.5, 2])},
        {"y_train": np.array([0, 1, np.nan, 2])},
        {"y_train": np.arange(3)},
    ],
)
def test_npz_of_something_else(changes, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(**changes))
    assert sentence(lambda: data.load(f"npz:{path}"), "mine.npz")


# ---- Golden vectors.


def test_vectors(tmp_path):
    make_vectors(Datapath(), count=3, k=40).write(tmp_path)
    path = tmp_path / "vectors.json"
    good = json.loads(path.read_text())
    assert len(read_vectors(tmp_path).a) == 3
    wrong = (None, -1, 0, 1.5, 10**30, True, "x", [], {}, [None] * 3, [2**70] * 3, [1.5] * 3, {"format": 3}, 1e400)
    parts = ("datapath", "accumulators", "scales", "codes", "converter")
    for key in ("dot_products", "k", "vectors_per_dot_product", *parts):
        for value in wrong:
            path.write_text(json.dumps({**good, key: value}))
            assert sentence(lambda: read_vectors(tmp_path), "vectors.json")
        path.write_text(json.dumps({name: value for name, value in good.items() if name != key}))
        assert f"lacks '{key}'" in sentence(lambda: read_vectors(tmp_path), "vectors.json")
    for block in (-1, 0, 1.5, True, "x", [], 33, 32):  # of 32 there are no shifts
        path.write_text(json.dumps({**good, "block": block}))
        with pytest.raises((ValueError, OSError)):
            read_vectors(tmp_path)
    path.write_text(json.dumps({**good, "groups": 2}))
    assert "says groups, which this version does not know" in sentence(lambda: read_vectors(tmp_path), "vectors.json")
    for names in (["x"], 3, None):
        path.write_text(json.dumps({**good, "names": names}))
        assert sentence(lambda: read_vectors(tmp_path), "vectors.json")
    for text in ("", "[]", "3", "{", "[" * 100_000):
        path.write_text(text)
        assert sentence(lambda: read_vectors(tmp_path), "vectors.json")
    path.write_text(json.dumps(good))
    for contents in ("", "xyz\n" * 6, "00\n" * 5):
        (tmp_path / "a.hex").write_text(contents)
        assert sentence(lambda: read_vectors(tmp_path), "vectors.json")


def test_vectors_of_blocks(tmp_path):
    make_vectors(Datapath(vector_size=16), count=3, k=64, block=32).write(tmp_path)
    path = tmp_path / "b_shift.hex"
    good = path.read_text().split()
    for words in (good[:-1], ["100", *good[1:]], [f"{(int(good[0], 16) + 1) % 16:02x}", *good[1:]], ["x", *good[1:]]):
        path.write_text("\n".join(words))
        assert sentence(lambda: read_vectors(tmp_path), "vectors.json")


# ---- States of studies.


@pytest.mark.parametrize("text", ["", "{", "3", "{}", '{"about": {}}', '{"about": {}, "runs": {"a": {"b": 1}}}'])
def test_a_contest(text, tmp_path):
    path = tmp_path / "runs.json"
    path.write_text(text)
    settings = Settings(epochs=1)
    assert sentence(lambda: Contest(data.load("digits"), ["fp32"], settings, [1.0], [0], path), "runs.json")


@pytest.mark.parametrize("text", ["garbage\n{\n", "3\n", '{"op_code": 99}\n', "{}\n"])
def test_a_sweep(text, tmp_path):
    path = tmp_path / "sweep.journal"
    path.write_text(text)
    run = lns_sim("sweep", "acc_bits=20,24", "--epochs", "1", "--storage", str(path), "--out", str(tmp_path))
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "sweep.journal is no storage of Optuna, or is damaged" in run.stderr
