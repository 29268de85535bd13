"""The corrections of log-domain addition as a SystemVerilog module, log_correction: shifters, or ROMs of the tables."""

from __future__ import annotations

from lns_sim import LogDatapath, reference_log


def module(d: LogDatapath) -> str:
    """The module's text."""
    bits = d.acc_bits - 1
    body = _shifters(d, bits) if d.tables.kind == "shift" else _roms(d, bits)
    return f"""\
// Corrections of {d.label}: written by csrc.rtl.tables.
module log_correction #(
    parameter int U_BITS = {bits}
) (
    input  logic [U_BITS-1:0] distance,
    input  logic              subtract,
    output logic [U_BITS-1:0] correction
);
{body}
endmodule
"""


def _most(bits: int) -> int:
    """What exceeds the range saturates, or lies below it, whatever it is."""
    return (1 << bits) - 1


def _shifters(d: LogDatapath, bits: int) -> str:
    """An octave, or one and a half, halved for every octave of the distance (Sanyal et al., arXiv 1910.09876)."""
    wide = max(bits, (3 * d.octave // 2).bit_length())
    return f"""\
  wire [U_BITS-1:0] octaves = distance >> {d.octave.bit_length() - 1};
  wire [{wide - 1}:0] halved = (subtract ? {wide}'d{3 * d.octave // 2} : {wide}'d{d.octave}) >> octaves;
  assign correction = {f"halved > {wide}'d{_most(bits)} ? '1 : {bits}'(halved)" if wide > bits else "halved"};"""


def _roms(d: LogDatapath, bits: int) -> str:
    """One for equal signs and one for different signs, by distance."""
    most = _most(bits)
    plus, minus = ([min(entry, most) for entry in table[: most + 1]] for table in reference_log.tables(d))
    at_bits = max(len(plus) - 1, len(minus) - 1, 1).bit_length()
    return f"""\
  wire [{at_bits - 1}:0] at = distance[{at_bits - 1}:0];
  wire listed = distance == U_BITS'(at);
  logic [{bits - 1}:0] plus, minus;
  always_comb
    case (at)
{_rows("plus", plus, at_bits, bits)}
    endcase
  always_comb
    case (at)
{_rows("minus", minus, at_bits, bits)}
    endcase
  assign correction = listed ? (subtract ? minus : plus) : '0;"""


def _rows(name: str, entries: list[int], at_bits: int, bits: int) -> str:
    shown = [f"      {at_bits}'d{d}: {name} = {bits}'d{entry};" for d, entry in enumerate(entries)]
    return "\n".join([*shown, f"      default: {name} = '0;"])
