// One lane's product: adds two logarithms, in the accumulator's steps. Numbers are log_add's.
module log_product #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int ACC_BITS = 16,
    parameter int ACC_GAMMA = 512,
    parameter int OFFSET = 3969,
    parameter int SATURATE = 0
) (
    input  logic [BITS-1:0]     a,
    input  logic [BITS-1:0]     b,
    output logic [ACC_BITS-1:0] p
);
  localparam int FINER = $clog2(ACC_GAMMA / GAMMA);
  localparam int BIAS = 2 ** (ACC_BITS - 2) - OFFSET;  // of u over E + offset
  localparam int BIAS_BITS = $clog2((BIAS < 0 ? -BIAS : BIAS) + 1);
  localparam int WIDEST = BITS + FINER > BIAS_BITS ? BITS + FINER : BIAS_BITS;
  localparam int W = (WIDEST > ACC_BITS ? WIDEST : ACC_BITS) + 2;
  localparam logic signed [W-1:0] MOST = W'(2 ** (ACC_BITS - 1) - 1);

  wire some = a[BITS-2:0] != '0 && b[BITS-2:0] != '0;
  wire [BITS-1:0] e = {1'b0, a[BITS-2:0]} + {1'b0, b[BITS-2:0]};
  wire signed [W-1:0] u = $signed(W'(e) << FINER) + W'(BIAS);
  wire below = u < 1;
  wire [ACC_BITS-2:0] clamped = (ACC_BITS - 1)'(below ? W'(1) : u > MOST ? MOST : u);
  assign p = !some || (below && SATURATE == 0) ? '0 : {a[BITS-1] ^ b[BITS-1], clamped};
endmodule
