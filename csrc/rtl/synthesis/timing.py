"""OpenSTA, which finds the slowest path of a netlist of a Liberty file's cells."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_LONG = 1000.0  # ns: a period that every path fits in


def minimum_period(verilog: Path, top: str, liberty: Path) -> float:
    """The shortest clock period, ns, without wires; inputs come at the clock's edge, outputs are taken at one.

    Raises:
        RuntimeError: OpenSTA is missing, or finds no path; the message is its own.
    """
    sta = shutil.which("sta")
    if sta is None:
        raise RuntimeError("this needs OpenSTA: on Debian, apt-get install opensta")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.tcl"
        script.write_text(f"""
            read_liberty {liberty}
            read_verilog {verilog}
            link_design {top}
            create_clock -name clk -period {_LONG} [get_ports clk]
            set_input_delay 0 -clock clk [all_inputs]
            set_output_delay 0 -clock clk [all_outputs]
            report_checks -path_delay max -digits 4
        """)
        done = subprocess.run([sta, "-exit", "-no_splash", script], capture_output=True, text=True)
    error = re.search(r"Error.*", done.stdout + done.stderr)
    slack = re.search(r"(-?[\d.]+)\s+slack", done.stdout)
    if error or slack is None:
        raise RuntimeError(f"OpenSTA, on {verilog.name}: {error[0] if error else 'it finds no path'}")
    return _LONG - float(slack[1])
