"""Every guide runs, and shows what its reader is told to look at."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest

GUIDES = Path(__file__).parent.parent / "docs/guides"
SHOWN = {
    "first_steps.py": [r"relative error 0\.0\d", r"327,680 products", r"acc_bits': 16"],
    "transformer.py": [r"product, forward, .* 28 accumulator bits", r"left in float32: \[\('classifier'", r"steps 46 to 60: loss 0\.\d"],
}


def test_every_guide_is_tested():
    assert {p.name for p in GUIDES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_guide(name, capsys):
    if name == "transformer.py" and importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed (the extra 'test' has it)")
    runpy.run_path(str(GUIDES / name), run_name="__main__")
    shown = capsys.readouterr().out
    for pattern in SHOWN[name]:
        assert re.search(pattern, shown), f"{pattern} is not in:\n{shown}"
