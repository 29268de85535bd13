"""What is proved of the RTL for all inputs, and that a wrong design is not."""

from dataclasses import replace

import pytest

from csrc.rtl.design import RTL
from csrc.rtl.formal.claims import claims, converter, flow, lane, log_product, log_sum, prove, tree
from lns_sim import Datapath, LNSFormat, LogDatapath

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("yosys")]
LANE = lane(Datapath(LNSFormat(5, 4), lut_entries=2, lut_bits=5, acc_lsb=1))
CONVERTER = converter(Datapath(LNSFormat(5, 4), acc_bits=9), "clamp")
FLUSHED = converter(Datapath(LNSFormat(4, 2), acc_bits=26), "flush")
LOG = LogDatapath(LNSFormat(5, 4), acc_bits=8, acc_gamma=4, offset=70)
LOG_SUM, LOG_PRODUCT = log_sum(LOG), log_product(LOG)
SATURATED = log_sum(LogDatapath(LNSFormat(5, 4), acc_bits=8, acc_gamma=4, tables="shift", underflow="saturate"))


@pytest.mark.parametrize(
    "claim",
    [LANE, tree(5, 3), CONVERTER, FLUSHED, flow("bins"), LOG_SUM, LOG_PRODUCT, SATURATED],
    ids=lambda claim: claim.name,
)
def test_small_claims_hold(claim):
    prove(claim)
    names = [c.name for c in claims()]
    assert len(set(names)) == len(names) > 18


@pytest.mark.parametrize(
    "claim, file, old, new",
    [
        (LANE, "lns_product.sv", "32'(shift) >= NEEDED", "32'(shift) > NEEDED"),
        (tree(5, 3), "adder_tree.sv", "= -OFFSETS", "= OFFSETS"),
        (CONVERTER, "lns_convert.sv", "above[j] = fraction > T", "above[j] = fraction < T"),
        (CONVERTER, "lns_convert.sv", "acc[ACC_BITS-1] ? -acc : acc", "acc[ACC_BITS-1] ? ~acc : acc"),
        (CONVERTER, "lns_convert.sv", "e > E_MAX ? E_MAX : e", "e"),
        (FLUSHED, "lns_convert.sv", "+ E_BITS'($signed({1'b0, carry}))", ""),
        (flow("rom"), "shell.sv", "!= ($clog2(RESULTS) + 1)'(RESULTS)", "!= ($clog2(RESULTS) + 1)'(RESULTS + 1)"),
        (flow("rom"), "shell.sv", "wire taken = out_valid && out_ready", "wire taken = out_valid"),
        (flow("rom"), "lns_convert.sv", "if (advance) code", "if (1) code"),
        (flow("rom"), "lns_datapath.sv", "in_valid && in_ready && in_last", "in_valid && in_last"),
        (LOG_SUM, "log_add.sv", "larger = swap ? y : x", "larger = swap ? x : y"),
        (LOG_SUM, "log_add.sv", "wire alone = (swap ? ux : uy) == '0", "wire alone = uy == '0"),
        (LOG_SUM, "log_add.sv", "u[U_BITS-1:0] | {U_BITS{above}}", "u[U_BITS-1:0]"),
        (LOG_SUM, "log_add.sv", "cancelled ? '0 :", "cancelled ? larger :"),
        (SATURATED, "log_add.sv", "SATURATE != 0 ?", "SATURATE == 0 ?"),
        (LOG_PRODUCT, "log_product.sv", "u < 1", "u < 2"),
        (LOG_PRODUCT, "log_product.sv", "!some ||", ""),
        (flow("rom"), "queue.sv", "if (rst) {head, tail} <= '0;", "if (rst) head <= '0;"),
    ],
)
def test_faults_are_refuted(claim, file, old, new, tmp_path):
    source = next(s for s in claim.design.sources if s.endswith(f"/{file}"))
    text = (RTL / source).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    sources = tuple(str(tmp_path / file) if s == source else s for s in claim.design.sources)
    with pytest.raises(RuntimeError, match="(?i)proof"):
        prove(replace(claim, design=replace(claim.design, sources=sources)))
