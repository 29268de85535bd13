// One lane's product: adds two logarithms and splits the sum into sign, shift and remainder.
//
// A product that the accumulator does not see (of a zero, or below its unit) is told by `visible`; all else is 0 then, so that
// what follows does not switch.
module lns_product #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LUT_ENTRIES = 8,
    parameter int ACC_LSB = 14,
    localparam int SHIFT_BITS = lns_pkg::shift_bits(BITS, GAMMA, ACC_LSB),
    localparam int R_BITS = lns_pkg::r_bits(GAMMA)
) (
    input  logic [BITS-1:0]       a,
    input  logic [BITS-1:0]       b,
    output logic                  visible,
    output logic                  negative,
    output logic [SHIFT_BITS-1:0] shift,  // of (gamma + r_L) / gamma, in units of the accumulator; a constant part is left out
    output logic [R_BITS-1:0]     r       // without the bits of Mitchell's part that fall below the accumulator's unit
);
  localparam int LOG_G = $clog2(GAMMA);
  localparam int LOG_L = LOG_G - $clog2(LUT_ENTRIES);  // bits of the remainder that are Mitchell's part
  localparam int UNIT = lns_pkg::max(ACC_LSB, 0);
  localparam int LEFT = lns_pkg::max(-ACC_LSB, 0);
  localparam int D_BITS = lns_pkg::max(BITS, $clog2(UNIT + 1)) + 1;

  wire [BITS-1:0] p = {1'b0, a[BITS-2:0]} + {1'b0, b[BITS-2:0]};
  wire [BITS-1:0] q = p >> LOG_G;
  wire [D_BITS-1:0] above = D_BITS'(q) - D_BITS'(UNIT);
  assign visible = a[BITS-2:0] != '0 && b[BITS-2:0] != '0 && above >> SHIFT_BITS == '0;
  assign negative = visible && (a[BITS-1] ^ b[BITS-1]);
  assign shift = SHIFT_BITS'(above) & {SHIFT_BITS{visible}};
  for (genvar i = 0; i < R_BITS; i++) begin : g_remainder
    localparam int NEEDED = i < LOG_L ? lns_pkg::max(LOG_G - LEFT - i, 0) : 0;  // shift that lifts the bit to the unit
    if (i >= LOG_G) begin : g_none
      assign r[i] = 1'b0;
    end else if (NEEDED == 0) begin : g_always
      assign r[i] = p[i] && visible;
    end else begin : g_lifted
      assign r[i] = p[i] && visible && 32'(shift) >= NEEDED;
    end
  end
endmodule
