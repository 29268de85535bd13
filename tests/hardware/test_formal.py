"""What is proved of the RTL for all inputs, and that a wrong design is not."""

from dataclasses import replace

import pytest

from csrc.rtl.formal.claims import claims, lane, prove, tree
from lns_sim import Datapath, LNSFormat

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("yosys")]
SMALL = lane(Datapath(LNSFormat(5, 4), lut_entries=2, lut_bits=5, acc_lsb=1))


@pytest.mark.parametrize("claim", [SMALL, tree(5, 3)], ids=lambda claim: claim.top)
def test_small_claims_hold(claim):
    prove(claim)
    names = [c.name for c in claims()]
    assert len(set(names)) == len(names) > 10


def test_a_wrong_lane_is_refuted(tmp_path):
    wrong = tmp_path / "lns_product.sv"
    right = next(path for path in SMALL.paths() if path.endswith("lns_product.sv"))
    with open(right) as file:
        wrong.write_text(file.read().replace("32'(shift) >= NEEDED", "32'(shift) > NEEDED"))
    sources = tuple(str(wrong) if source.endswith("lns_product.sv") else source for source in SMALL.sources)
    with pytest.raises(RuntimeError, match="(?i)proof"):
        prove(replace(SMALL, sources=sources))
