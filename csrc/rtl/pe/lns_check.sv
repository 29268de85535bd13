// For simulation: no width between products and collector is too small. A vector's sum, in 64 bits and in the paper's order of
// operations, against y and z.
`ifndef SYNTHESIS
module lns_check #(
    parameter int GAMMA = 8,
    parameter int LANES = 32,
    parameter int LUT_ENTRIES = 8,
    parameter int LUT_BITS = 8,
    parameter int ACC_LSB = 14,
    parameter int NEAREST = 0,
    parameter int DELAY = 1,  // clocks from the products to their sum
    parameter int SHIFT_BITS = 5,
    parameter int R_BITS = 3,
    parameter int Y_BITS = 31,
    parameter int Z_BITS = 24
) (
    input logic                        clk,
    input logic                        due,  // y and z are of a vector
    input logic [LANES-1:0]            visible,
    input logic [LANES-1:0]            negative,
    input logic [LANES*SHIFT_BITS-1:0] shift,
    input logic [LANES*R_BITS-1:0]     r,
    input logic signed [Y_BITS-1:0]    y,
    input logic signed [Z_BITS-1:0]    z
);
  localparam int F = LUT_BITS - 1;
  localparam int PER_BIN = GAMMA / LUT_ENTRIES;
  localparam longint HALF = NEAREST != 0 ? 64'd1 << F >> 1 : 64'd0;
  wire [LUT_ENTRIES*32-1:0] constants;
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_constant
    assign constants[j*32+:32] = lns_pkg::lut_constant(j, LUT_ENTRIES, F);
  end
  int remainder, mantissa;
  longint total, one;
  always_comb begin
    total = 0;
    for (int i = 0; i < LANES; i++) begin
      remainder = 32'(r[i*R_BITS+:R_BITS]);
      mantissa = GAMMA + remainder % PER_BIN;
      one = 64'(mantissa) << lns_pkg::max(-ACC_LSB, 0) << shift[i*SHIFT_BITS+:SHIFT_BITS] >> $clog2(GAMMA);
      one = one * 64'(constants[remainder/PER_BIN*32+:32]);
      if (visible[i]) total = negative[i] ? total - one : total + one;
    end
  end
  logic [DELAY*64-1:0] totals;
  always_ff @(posedge clk) totals <= (DELAY * 64)'({totals, total});
  wire signed [63:0] expected = totals[DELAY*64-1-:64];
  always @(posedge clk)
    if (due) begin
      assert (expected == 64'(y)) else $error("Y overflows");
      assert ((expected + HALF) >>> F == 64'(z)) else $error("Z overflows");
    end
endmodule
`endif
