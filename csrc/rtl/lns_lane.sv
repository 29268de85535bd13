// One lane: adds two logarithms and makes of the sum a shifted one, its sign and its bin.
module lns_lane #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LUT_ENTRIES = 8,
    parameter int ACC_LSB = 14,
    localparam int BIN_BITS = lns_pkg::max($clog2(LUT_ENTRIES), 1),
    localparam int Q_MAX = 2 * (2 ** (BITS - 1) - 1) / GAMMA,
    localparam int T_BITS = lns_pkg::max(Q_MAX - ACC_LSB + 1, 1)
) (
    input  logic [BITS-1:0]     a,
    input  logic [BITS-1:0]     b,
    output logic [T_BITS-1:0]   t,
    output logic                negative,
    output logic [BIN_BITS-1:0] bin
);
  localparam int LOG_G = $clog2(GAMMA);
  localparam int LOG_L = LOG_G - $clog2(LUT_ENTRIES);  // bits of the remainder that Mitchell's line takes
  localparam int W = LOG_G + 1 + Q_MAX;
  localparam int DROP = ACC_LSB + LOG_G;  // fraction bits below the accumulator's unit

  // Multiply as add, then split into quotient, bin and Mitchell part.
  wire [BITS-1:0] p = {1'b0, a[BITS-2:0]} + {1'b0, b[BITS-2:0]};
  wire [BITS-1:0] q = p >> LOG_G;
  wire [BITS-1:0] r = p & BITS'(GAMMA - 1);
  wire zero = a[BITS-2:0] == '0 || b[BITS-2:0] == '0;
  assign negative = a[BITS-1] ^ b[BITS-1];
  assign bin = BIN_BITS'(r >> LOG_L);

  // (gamma + r_L) * 2^q, of which the accumulator sees what is not below its unit.
  wire [LOG_G:0] mantissa = (LOG_G + 1)'(GAMMA) + (LOG_G + 1)'(r & BITS'(2 ** LOG_L - 1));
  wire [W-1:0] shifted = W'(mantissa) << q;
  if (DROP >= W) begin : g_nothing
    wire unused = |shifted;
    assign t = '0 & {T_BITS{zero & unused}};
  end else if (DROP >= 0) begin : g_right
    assign t = zero ? '0 : T_BITS'(shifted >> DROP);
  end else begin : g_left
    assign t = zero ? '0 : T_BITS'(shifted) << -DROP;
  end
endmodule
