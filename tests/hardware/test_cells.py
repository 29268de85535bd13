"""A Liberty file's cells: read, mapped to, timed and priced."""

import sys

import numpy as np
import pytest
import tomlkit

from csrc.rtl.design import E3M0, INT4, fixed_vector
from csrc.rtl.synthesis import cells, gates, glitches, operands, timing, yosys
from csrc.rtl.synthesis.liberty import boolean, parse
from csrc.rtl.synthesis.library import Library
from csrc.rtl.synthesis.netlist import Netlist
from csrc.rtl.synthesis.power import Power
from csrc.rtl.synthesis.table import Row

# Delays in 10 ps, capacitance in fF, 2 V.
LIBERTY = """
/* a library */
library(tiny) {
  time_unit : "10ps"; voltage_unit : "1V"; leakage_power_unit : "1uW"; capacitive_load_unit (1,ff);
  nom_voltage : 2.0; delay_model : table_lookup; current_unit : "1uA"; pulling_resistance_unit : "1kohm";
  slew_upper_threshold_pct_rise : 80; slew_lower_threshold_pct_rise : 20; input_threshold_pct_rise : 50;
  slew_upper_threshold_pct_fall : 80; slew_lower_threshold_pct_fall : 20; input_threshold_pct_fall : 50;
  output_threshold_pct_rise : 50; output_threshold_pct_fall : 50;
  lu_table_template(d) { variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;
    index_1 ("0, 10"); index_2 ("1, 3"); }
  power_lut_template(e) { variable_1 : total_output_net_capacitance; index_1 ("0, 100"); }
  cell (INV) { area : 2; cell_leakage_power : 3;
    pin(A) { direction : input; capacitance : 5; }
    pin(Y) { direction : output; function : "!A";
      timing() { related_pin : "A"; timing_sense : negative_unate;
        cell_rise(d) { values ("1, 3", "2, 4"); } cell_fall(d) { values ("1, 3", \\
          "2, 4"); }
        rise_transition(d) { values ("1, 1", "1, 1"); }
        fall_transition(d) { values ("1, 1", "1, 1"); } }
      internal_power() { related_pin : "A"; rise_power(e) { values ("10, 110"); }
        fall_power(e) { values ("10, 110"); } } } }
  cell (BUF) { area : 4;
    pin(A) { direction : input; capacitance : 5; }
    pin(Y) { direction : output; function : "A";
      timing() { related_pin : "A"; timing_sense : positive_unate;
        cell_rise(d) { values ("3, 3", "3, 3"); } cell_fall(d) { values ("3, 3", "3, 3"); }
        rise_transition(d) { values ("1, 1", "1, 1"); }
        fall_transition(d) { values ("1, 1", "1, 1"); } } } }
  cell (NAND2) { area : 3; cell_leakage_power : 1;
    pin(A) { direction : input; capacitance : 6; } pin(B) { direction : input; capacitance : 7; }
    pin(Y) { direction : output; function : "(A B)'";
      timing() { related_pin : "A"; timing_sense : negative_unate;
        cell_rise(d) { values ("2, 2", "2, 2"); } cell_fall(d) { values ("4, 4", "4, 4"); }
        rise_transition(d) { values ("1, 1", "1, 1"); }
        fall_transition(d) { values ("1, 1", "1, 1"); } }
      timing() { related_pin : "B"; timing_sense : negative_unate;
        cell_rise(d) { values ("2, 2", "2, 2"); } cell_fall(d) { values ("4, 4", "4, 4"); }
        rise_transition(d) { values ("1, 1", "1, 1"); }
        fall_transition(d) { values ("1, 1", "1, 1"); } }
      internal_power() { power(scalar) { values ("4"); } } } }
  cell (DFF) { area : 9; ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; }
    pin(CK) { direction : input; clock : true; capacitance : 1;
      internal_power() { rise_power(scalar) { values ("3"); } fall_power(scalar) { values ("5"); } } }
    pin(D) { direction : input; capacitance : 2; }
    pin(Q) { direction : output; function : "IQ";
      timing() { related_pin : "CK"; timing_type : rising_edge;
        cell_rise(d) { values ("5, 5", "5, 5"); } cell_fall(d) { values ("5, 5", "5, 5"); }
        rise_transition(d) { values ("1, 1", "1, 1"); }
        fall_transition(d) { values ("1, 1", "1, 1"); } } } }
  cell (HALF) { area : 5; pin(A) { direction : input; } pin(B) { direction : input; }
    pin(C) { direction : output; function : "A*B"; } pin(S) { direction : output; function : "A^B"; } }
}
"""


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "tiny.lib"
    path.write_text(LIBERTY)
    return Library(path)


def test_reading_a_library(library):
    assert library.name == "tiny" and library.voltage == 2.0 and set(library.cells) == {"INV", "BUF", "NAND2", "DFF"}
    inverter, nand, flip_flop = (library.cells[name] for name in ("INV", "NAND2", "DFF"))
    assert inverter.area == 2 and inverter.leakage == pytest.approx(3000)  # nW
    assert inverter.pins["A"].capacitance == pytest.approx(0.005)  # pF
    # Halfway between slews 0.01 and 0.03 ns, at 5 fF: (1.5 + 3.5) / 2 * 10 ps; beyond the table it goes on.
    (rise, fall) = inverter.arcs[0].delay
    assert rise(np.array([0.005]), np.array([0.02])) == fall(0.005, 0.02) == pytest.approx(0.025)
    assert rise(0.02, 0.01) == pytest.approx(0.03)
    assert inverter.energy[0](0.02, 0.5) == pytest.approx(0.030)  # pJ
    assert [nand.function(*x) & 1 for x in ((0, 0), (0, 1), (1, 0), (1, 1))] == [1, 1, 1, 0]
    assert nand.inputs == ("A", "B") and [arc.input for arc in nand.arcs] == ["A", "B"]
    assert flip_flop.function is None and flip_flop.clock == "CK" and flip_flop.inputs == ("D",)
    assert [s(0.0, 0.0) for s in flip_flop.pins["CK"].energy] == pytest.approx([0.003, 0.005])


def test_tables_with_the_transition_first(tmp_path):
    (tmp_path / "x.lib").write_text(
        LIBERTY.replace(
            "variable_1 : total_output_net_capacitance; variable_2 : input_net_transition", "variable_1 : x"
        )
        .replace("variable_1 : x", "variable_2 : total_output_net_capacitance; variable_1 : input_net_transition")
        .replace('index_1 ("0, 10"); index_2 ("1, 3")', 'index_2 ("0, 10"); index_1 ("1, 3")')
        .replace('"1, 3", "2, 4"', '"1, 2", "3, 4"')
    )
    rise = Library(tmp_path / "x.lib").cells["INV"].arcs[0].delay[0]
    assert rise(0.02, 0.01) == pytest.approx(0.03) and rise(0.0, 0.03) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("!(A*B)", "1110"),
        ("A' + B", "1101"),
        ("(!A&B)|(A !B)", "0110"),
        ("A^B", "0110"),
        ("A B'", "0010"),
        ("!A", "10"),
    ],
)
def test_functions(text, bits):
    inputs = ("A", "B")[: len(bits).bit_length() - 1]
    function = boolean(text, inputs)
    values = [[i >> len(inputs) - 1 - j & 1 for j in range(len(inputs))] for i in range(len(bits))]
    assert "".join(str(function(*map(np.array, x)) & 1) for x in values) == bits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("library(x) { cell (A) { area : 1;", "the end of the file"),
        ("cell(x) { }", "holds no library"),
        ("library(x) { }", "has no nom_voltage"),
        ('library(x) { nom_voltage : 1; time_unit : "1h"; }', "'1h' is no unit of s"),
    ],
)
def test_what_is_no_library(text, message, tmp_path):
    (tmp_path / "x.lib").write_text(text)
    with pytest.raises(ValueError, match=message):
        Library(tmp_path / "x.lib")


def module(*made):
    """Yosys' JSON of cells, (kind, {pin: net})."""
    bits = {"clk": 2, "a": 3, "q": 4, "n": 5}
    return {
        "ports": {name: {"bits": [bits[name]]} for name in ("clk", "a", "q")},
        "cells": {
            f"c{i}": {"type": kind, "connections": {p: [bits[n]] for p, n in pins.items()}}
            for i, (kind, pins) in enumerate(made)
        },
        "netnames": {name: {"bits": [bit], "hide_name": 0} for name, bit in bits.items()},
    }


def test_energy_of_two_cells(library):
    """An inverter and a flip-flop behind it, by hand: pJ = pF V^2."""
    netlist = Netlist(module(("INV", {"A": "a", "Y": "n"}), ("DFF", {"D": "n", "CK": "clk", "Q": "q"})), library.cells)
    power = Power(netlist, library)
    a, n, q = netlist.net("a", 0), netlist.net("q", 0) + 1, netlist.net("q", 0)
    assert power.change[a] == pytest.approx(0.005 * 4 / 2)  # the inverter's input
    assert power.change[n] == pytest.approx(
        0.002 * 4 / 2 + 0.010 + 0.002
    )  # the data's input, within the inverter at 2 fF
    assert power.change[q] == 0  # no reader, no table
    assert power.clock[q] == pytest.approx(0.001 * 4 + 0.003 + 0.005)
    assert power.delay[n] == pytest.approx(0.012) and power.leakage[n] == pytest.approx(3000)
    inputs = {"a": np.zeros((6, 64, 1), bool)}
    inputs["a"][3:] = True
    found = netlist.run(inputs, skip=1)  # 0 of the start and 1 that the inverter makes of it are over
    assert [found.switched[net, 0] for net in (a, n, q)] == [64, 64, 64] and found.written[q, 0] == 64
    blocks = power.by_block(found.switched[:, 0], np.full(netlist.nets, 4 * 64), 100.0)
    leaking = 100.0 * 3000 * 1e-6
    assert blocks[""] == pytest.approx(64 * power.change[n] + leaking)
    assert blocks["registers"] == pytest.approx(64 * power.change[a])
    assert blocks["clock"] == pytest.approx(4 * 64 * power.clock[q])
    assert power.steps(glitches.LONGEST)[n] == 2  # of which two are the median gate's delay


@pytest.mark.slow
@pytest.mark.usefixtures("yosys", "sta", "fresh_operands")
def test_a_design_on_cells_of_ones_own(library, monkeypatch, tmp_path):
    design = fixed_vector("tiny", E3M0, INT4, lanes=32, acc_bits=8)
    row = Row(design, E3M0, INT4, {"kind": "float", "format": "E3M0 x INT4", "lanes": 32, "handshake": True})
    monkeypatch.setattr(cells, "rows", lambda: [row])
    monkeypatch.setattr(operands, "STEPS", 1)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "found.toml"
    given = ["cells", "--liberty", str(library.path), "--node", "90", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", given)
    cells.main()
    assert (tmp_path / "runs/cells/tiny.png").stat().st_size > 1000
    text = out.read_text()
    assert "make cells LIBERTY=tiny.lib NODE=90" in text and "Yosys 0" in text and "OpenSTA" in text
    found = tomlkit.parse(text).unwrap()
    assert found["process"] == {"name": "tiny", "node_nm": 90, "voltage": 2.0, "wires": False, "source": "tiny.lib"}
    numbers = found["designs"]["tiny"]
    assert numbers["kind"] == "float" and numbers["handshake"] is True and numbers["lanes"] == 32
    verilog = tmp_path / "tiny.v"
    netlist = Netlist(yosys.cells(design, library.path, verilog), library.cells)
    count = {
        g.kind: sum(len(x.outputs) for x in (*netlist.gates, *netlist.registers) if x.kind == g.kind)
        for g in (*netlist.gates, *netlist.registers)
    }
    assert {"INV", "NAND2", "DFF"} <= set(count) <= {"INV", "BUF", "NAND2", "DFF"}
    areas = {"INV": 2, "BUF": 4, "NAND2": 3, "DFF": 9}
    assert numbers["area_um2"] == sum(areas[kind] * n for kind, n in count.items())
    inputs = operands.inputs(row, ("random",), 64, 2, netlist)
    assert (netlist.run(inputs, "out_acc").seen == gates.netlist(design).run(inputs, "out_acc").seen).all()
    period = timing.minimum_period(verilog, design.top, library.path)
    assert numbers["period_ns"] == pytest.approx(period, abs=0.001) and period > 0.02 * netlist.depth
    random, idle = numbers["fj"]["random"], numbers["fj"]["idle"]
    assert random > numbers["fj_zero_delay"]["random"] > idle > 0  # glitches cost, zeros save
    assert numbers["fj_gated_clock"]["random"] < random
    clock = count["DFF"] * (0.001 * 4 + 0.008) * 1000 / 32
    assert numbers["fj"]["blocks"]["clock"] == pytest.approx(clock, abs=0.1)
    passes = np.mean([numbers["fj"][p] for p in ("forward", "input_gradient", "weight_gradient")])
    assert sum(numbers["fj"]["blocks"].values()) == pytest.approx(passes, abs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--liberty", "TINY"], "not known here: give its node"),
        (["--liberty", "TINY", "--node", "90", "--designs", "FP7"], "designs are: LNS rom, LUT 1; "),
    ],
)
def test_what_the_command_refuses(arguments, message, library, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cells", *(str(library.path) if a == "TINY" else a for a in arguments)])
    with pytest.raises(RuntimeError, match=message):
        cells.main()


def test_a_file_that_is_no_library(tmp_path):
    with pytest.raises(ValueError, match="expected"):
        parse("library(")
    with pytest.raises(ValueError, match=r"nothing\.lib cannot be read: No such file"):
        Library(tmp_path / "nothing.lib")
