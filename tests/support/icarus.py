"""Icarus Verilog as a reader of designs."""

import subprocess

from csrc.rtl.design import Design


def icarus_lint(icarus: str, design: Design) -> str:
    """What Icarus has against a design, with all warnings on."""
    given = [f"-P{design.top}.{parameter}={value}" for parameter, value in design.parameters]
    command = [icarus, "-g2012", "-Wall", "-t", "null", "-s", design.top, *given, *design.paths()]
    run = subprocess.run(command, capture_output=True, text=True)
    return run.stderr or ("" if run.returncode == 0 else "it fails")
