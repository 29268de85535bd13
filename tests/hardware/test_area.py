"""Yosys measures all designs of the tables."""

import json
import shutil

import pytest

from csrc.rtl.design import E3M0, INT4, fixed_vector, pe
from csrc.rtl.synthesis import area, gates, yosys
from csrc.rtl.synthesis.table import Row, rows
from lns_sim import Datapath, LNSFormat
from lns_sim.environment import command, environment


@pytest.mark.usefixtures("yosys")
@pytest.mark.slow
def test_areas():
    small = [Datapath(LNSFormat(5, 2), vector_size=4, lut_entries=n) for n in (1, 2)]
    one, two, bins = (area.synthesize(design) for design in (*map(pe, small), pe(small[1], "bins")))
    assert bins.transistors > two.transistors
    flip_flop = gates.GATES[gates.FLIP_FLOP].transistors
    assert two.transistors > one.transistors > flip_flop * one.flip_flops
    assert two.cells > one.cells > one.flip_flops > 16 * 24
    wide = area.synthesize(pe(Datapath(LNSFormat(5, 2), vector_size=4, lut_entries=1, acc_bits=32)))
    assert wide.flip_flops > one.flip_flops + 16 * 8 - 1
    assert wide.blocks["collector"] > one.blocks["collector"] + flip_flop * 16 * 8 - 1
    assert 5 < one.depth < 200
    tiny = fixed_vector("tiny", E3M0, INT4, lanes=2, acc_bits=4)
    assert 30 < yosys.luts(tiny) < 500
    bare = area.synthesize(fixed_vector("tiny", E3M0, INT4, lanes=2, acc_bits=4, handshake=False))
    assert "queue" not in bare.blocks and bare.transistors < area.synthesize(tiny).transistors


@pytest.mark.usefixtures("yosys")
@pytest.mark.slow
def test_the_files_say_how_they_were_made(monkeypatch, tmp_path):
    tiny = fixed_vector("INT8", E3M0, INT4, lanes=2, acc_bits=4)
    monkeypatch.setattr(area, "rows", lambda: [Row(tiny, E3M0, INT4, {})])
    area.main(tmp_path)
    found = json.loads((tmp_path / "area.json").read_text())
    assert found["commands"] == [command()] and found["environment"] == environment()
    assert found["tools"] == yosys.version() and found["tools"].startswith("Yosys ")
    assert [design["name"] for design in found["designs"]] == ["INT8"] and (tmp_path / "area.png").exists()


def test_the_tables_compare_like_with_like():
    found = rows()
    names = [row.name for row in found]
    assert len(set(names)) == len(names) == 32
    for row in found:
        parameters = dict(row.design.parameters)
        assert parameters["LANES"] == 32 and parameters["ENTRIES"] == (32 if "sequential" in row.name else 16)
        assert parameters["HANDSHAKE"] == row.about["handshake"] == ("no handshake" not in row.name)
        assert parameters.get("ACC_BITS", 24) == row.about.get("acc_bits", 24)


def test_without_yosys_the_command_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install yosys"):
        area.synthesize(rows()[0].design)
