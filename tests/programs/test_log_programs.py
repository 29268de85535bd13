"""Datapaths that add logarithms in files, on command lines, in sweeps and in golden vectors."""

import json

import pytest
from command import lns_sim as command

from lns_sim import LogDatapath, LogTables, recipes, reference
from lns_sim.golden import check_results, make_vectors, read_vectors, trace_dot
from lns_sim.recipes import Recipe
from lns_sim.recipes import files as recipe_files
from lns_sim.studies.sweep import space

PE = LogDatapath(acc_bits=12, headroom_bits=1, tables="shift", order="tree", vector_size=8)
TABLES = [
    "exact",
    LogTables.coarse(3),
    LogTables.segments([(0, 30), (9, 0)], [(1, 90), (50, 3)]),
    LogTables.lists([3, 2, 1], [0, 5, 4]),
]


@pytest.mark.parametrize("tables", TABLES, ids=str)
def test_recipes_come_back_as_they_were_written(tables):
    recipe = recipes.lns_madam(datapath=LogDatapath(acc_bits=12, tables=tables))
    assert Recipe.decode(recipe.encode()) == recipe
    assert recipe_files.parse(recipe_files.dump(recipe), recipe.name).default == recipe


def test_a_file_changes_the_kind_of_a_pass_back_and_forth():
    text = """
    input_gradient = "float32"
    [forward]
    datapath = "LogDatapath"
    acc_bits = 12
    tables = { kind = "coarse", drop = 3 }
    [[override]]
    layers = "fc"
    forward = { acc_bits = 14 }
    input_gradient = { datapath = "LogDatapath", order = "tree", vector_size = 4 }
    [[override]]
    layers = "head"
    forward = { datapath = "Datapath", acc_bits = 20 }
    """
    found = recipe_files.parse(text, "mine")
    (_, fc), (_, head) = found.overrides
    assert found.default.forward == LogDatapath(acc_bits=12, tables="coarse:3")
    assert fc.forward == LogDatapath(acc_bits=14, tables="coarse:3")
    assert fc.input_gradient == LogDatapath(order="tree", vector_size=4) and head.forward.acc_bits == 20
    assert recipe_files.parse(recipe_files.dump(found), "mine") == found


@pytest.mark.parametrize(
    "table, message",
    [
        ('datapath = "Log"', "forward: datapath must be one of 'Datapath', 'LogDatapath', got 'Log'"),
        ('datapath = "LogDatapath"\nlut_bits = 3', "forward.lut_bits is no key here"),
        ('datapath = "LogDatapath"\ntables = "shfit"', "did you mean 'shift'"),
        ('datapath = "LogDatapath"\ntables = 3', "forward: tables must be LogTables, a name or two lists, got 3"),
        ("tables = 3", "forward.tables is no key here"),
    ],
)
def test_mistakes_in_files_name_the_key(table, message):
    with pytest.raises(ValueError, match=message):
        recipe_files.parse(f"[forward]\n{table}")


def test_sweeps_take_its_values():
    points = space.points(space.parse(["log_acc_bits=12,16", "forward.log_tables=exact,coarse:4", "log_order=tree"]))
    made = [space.recipe_of(point, recipes.lns_madam()) for point in points]
    assert [r.forward.tables.label for r in made] == ["exact", "coarse:4"] * 2
    assert {r.weight_gradient for r in made} == {LogDatapath(acc_bits=b, order="tree") for b in (12, 16)}
    kept = space.recipe_of({"bits": 6}, recipes.lns_madam(datapath=PE))
    assert kept.forward.format.bits == 6 and kept.forward.tables == PE.tables
    with pytest.raises(ValueError, match="log_tables must be|tables must be one of"):
        space.parse(["log_tables=exct"])


@pytest.mark.parametrize("name", ["coarse", "segments", "lists", "coarse:x", "exact:5", "shift:"])
def test_names_that_are_no_tables_of_their_own_are_refused(name):
    with pytest.raises(ValueError, match="a name, e.g. exact, shift or coarse:5, got "):
        LogTables.of(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["vectors", "out", "--log-acc-bits", "12", "--acc-bits", "20"], "--acc-bits cannot go with --log-..."),
        (["rtl", "out", "--log-offset", "9", "--log-headroom-bits", "2"], "--log-headroom-bits would change nothing"),
        (["train", "--acc-lsb", "9", "--headroom-bits", "2"], "--headroom-bits would change nothing beside --acc-lsb"),
        (["vectors", "out", "--b-format", "5:2", "--source", "corner"], "take random or npz:PATH for others"),
        (["vectors", "out", "--log-order", "tree", "--scale", "3"], "--scale would change nothing"),
        (["compare", "--log-tables", "shift", "--lut-bits", "9"], "lut_bits and log_tables cannot go together"),
        (["energy", "mlp", "--log-acc-bits", "12"], "adds logarithms (LogDatapath): take the technology measured"),
    ],
)
def test_what_cannot_go_together_is_refused_in_a_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = command(*arguments)
    assert run.returncode != 0 and message in " ".join(run.stderr.split()) and "Traceback" not in run.stderr


@pytest.mark.slow
def test_vectors_from_the_command_line(tmp_path):
    (tmp_path / "tables.json").write_text(json.dumps({"plus": [9, 5, 2], "minus": [0, 8, 3]}))
    golden = tmp_path / "golden"
    options = ["--log-acc-bits", "12", "--log-tables", str(tmp_path / "tables.json"), "--log-vector-size", "4"]
    command("vectors", str(golden), "--count", "30", "--k", "10", "--intermediates", *options)
    vectors = read_vectors(golden)
    assert vectors.datapath.tables == LogTables.lists([9, 5, 2], [0, 8, 3])
    words = {name: (golden / f"{name}.hex").read_text().splitlines() for name in ("acc", "plus", "minus", "sums")}
    assert [int(w, 16) for w in words["plus"]] == [9, 5, 2] and [int(w, 16) for w in words["minus"]] == [0, 8, 3]
    for a, b, acc, word in zip(vectors.a, vectors.b, vectors.accumulators, words["acc"]):
        expected = reference.dot(a.tolist(), b.tolist(), vectors.datapath)
        assert acc == expected and int(word, 16) == expected % 4096
    assert words["sums"][2].split()[-1] == words["acc"][0]  # the first dot product's third vector
    command("check-vectors", str(golden), str(golden / "acc.hex"))
    words["acc"][7] = f"{(int(words['acc'][7], 16) + 1) % 4096:03x}"
    (tmp_path / "wrong.hex").write_text("\n".join(words["acc"]))
    run = command("check-vectors", str(golden), str(tmp_path / "wrong.hex"))
    assert run.returncode == 1 and "dot product 7" in run.stdout and "sums" in run.stdout


@pytest.mark.parametrize("pe", [LogDatapath(headroom_bits=2), PE], ids=lambda pe: pe.label)
def test_corner_cases_reach_every_fate(pe, tmp_path):
    made = make_vectors(pe, "corner", k=20)
    assert all(made.coverage[fate] for fate in ("saturated", "cancelled", "zero", "cancelled_additions"))
    made.write(tmp_path)
    assert check_results(read_vectors(tmp_path), tmp_path / "acc.hex") is None
    for a, b, acc in zip(made.a[::37], made.b[::37], made.accumulators[::37]):
        assert trace_dot(a, b, pe).accumulator == acc
