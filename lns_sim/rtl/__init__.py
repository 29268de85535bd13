"""The hardware's files: SystemVerilog, test benches, guides, ``design`` with sources and parameters, and ``tables``,
which writes one of them.

A wheel has them in this folder; a checkout, where ``csrc/rtl`` is.
"""

from pathlib import Path

ROOT = Path(__file__).parent
GUIDES = ROOT / "guides"
if not (ROOT / "design.py").exists():
    checkout = ROOT.parents[1]
    ROOT, GUIDES = checkout / "csrc/rtl", checkout / "docs/guides"
    __path__.append(str(ROOT))
