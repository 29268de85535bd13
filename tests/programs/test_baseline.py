"""Measurements against a run that was kept: what is better, worse, new and gone, by ratios alone."""

import json
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks.baseline import Change, changes
from benchmarks.harness import Measurement


def measured(work, ratio, at_most=False, unit="x float32", section="matmul"):
    return Measurement(section, work, ratio, at_most=at_most, unit=unit, seconds=1.0)


KEPT = [
    *(measured(work, 1.0) for work in ("slower", "faster", "same", "gone")),
    *(measured(work, 0.1, at_most=True) for work in ("heavier", "lighter")),
    measured("rate", 6.0, unit="TMAC/s"),
    measured("elsewhere", 1.0, section="steps"),
]
NOW = [
    *(measured(work, ratio) for work, ratio in (("slower", 0.5), ("faster", 1.5), ("same", 1.09), ("new", 2.0))),
    *(measured(work, ratio, at_most=True) for work, ratio in (("heavier", 0.4), ("lighter", 0.0))),
    measured("rate", 1.0, unit="TMAC/s"),
]


def test_changes_are_of_ratios_of_the_sections_that_ran():
    found = changes(NOW, [r.record() for r in KEPT])
    gains = {c.work: c.gain for c in found}
    assert list(gains) == ["heavier", "slower", "faster", "lighter", "new", "gone"]
    assert [gains[name] for name in ("heavier", "slower", "faster", "lighter")] == pytest.approx(
        [0.25, 0.5, 1.5, float("inf")]
    )
    assert found[-2:] == [
        Change("matmul", "new", "x float32", None, 2.0),
        Change("matmul", "gone", "x float32", 1.0, None),
    ]
    assert not changes(NOW, [r.record() for r in NOW]) and len(changes(NOW, [r.record() for r in KEPT], 0.05)) == 7


def test_the_command_compares_with_what_it_wrote(tmp_path, monkeypatch, capsys):
    def run(rows, *args):
        monkeypatch.setattr(command, "SECTIONS", {"sizes": lambda: rows})
        monkeypatch.setattr(sys, "argv", ["benchmarks", *args])
        command.main()
        return capsys.readouterr().out

    file = str(tmp_path / "kept.json")
    run(KEPT, "--json", file)
    assert json.loads((tmp_path / "kept.json").read_text())["environment"]["cpu"]
    shown = run(NOW, "--against", file)
    assert "against the baseline: 2 worse, 2 better, 2 only in one run" in shown
    assert any("slower" in line and "0.50 x" in line for line in shown.splitlines())
    assert "against the baseline: 0 worse, 0 better, 0 only in one run" in run(KEPT, "--against", file)
    with pytest.raises(SystemExit) as status:
        run(NOW, "--against", str(tmp_path / "none.json"))
    assert status.value.code == 2 and "none.json" in capsys.readouterr().err
