"""What every command prints in a terminal of 80 columns."""

import pytest
import typer
from rich.cells import cell_len

from lns_sim.cli import bench
from lns_sim.cli.console import Output
from lns_sim.command.app import app

pytestmark = pytest.mark.slow

SMALL = "--model mlp --epochs 1 --batch-size 256"
COMMANDS = [
    "energy cnn --layers",
    "energy resnet18-imagenet --technology measured",
    "energy paper",
    "cycles resnet50 --layers --batch-size 32",
    f"sweep acc_bits=16,24 weight_gradient.lut_entries=8 {SMALL} --cost energy --cost cycles",
    f"train {SMALL} --seeds 1",
    "compare cnn",
    f"compare-recipes lns-madam-fake-quant fp8 {SMALL} --seeds 1 --search 1",
    "bench",
    "info",
    "vectors golden --count 10",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_lines_fit_and_no_column_vanishes_unsaid(line, monkeypatch, tmp_path, capsys):
    names, table = [], Output.table

    def noted(self, title, caption, header, rows, **how):
        names.extend(header)
        table(self, title, caption, header, rows, **how)

    monkeypatch.setattr(Output, "table", noted)
    monkeypatch.setattr(bench, "cases", lambda: [*bench._convolutions(1, 16, 32), bench._matmul(64, 512, 512)])
    monkeypatch.setattr(bench, "seconds", lambda f: f() is None or 1.234567e-3)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    typer.main.get_command(app)(line.split(), standalone_mode=False)
    shown = capsys.readouterr().out
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert "…" not in shown
    for word in " ".join(names).split():
        assert word in shown, f"{word} is neither a column nor told to have no room"
    assert names or line.startswith(("info", "vectors"))
