"""The README's example runs as printed."""

import re

from helpers import ROOT


def test_the_ten_lines_run():
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["y"].shape == (64, 10) and names["counters"].macs == 64 * 512 * 10
