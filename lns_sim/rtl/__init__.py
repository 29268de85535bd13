"""The hardware's files: SystemVerilog, test benches, ``design`` with sources and parameters, and guides.

A wheel has them in this folder; a checkout, where ``csrc/rtl`` is.
"""

from pathlib import Path

ROOT = Path(__file__).parent
GUIDES = ROOT / "guides"
if not (ROOT / "design.py").exists():
    checkout = ROOT.parents[1]
    ROOT, GUIDES = checkout / "csrc/rtl", checkout / "docs/guides"
    __path__.append(str(ROOT))
