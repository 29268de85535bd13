// The sum of a vector as the paper describes it: shifted ones are summed by remainder, and each of these bins is multiplied by
// one constant. y follows two clocks after the products.
module lns_bins #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LANES = 32,
    parameter int LUT_ENTRIES = 8,
    parameter int LUT_BITS = 8,
    parameter int ACC_LSB = 14,
    parameter int Y_BITS = 31,
    localparam int SHIFT_BITS = lns_pkg::shift_bits(BITS, GAMMA, ACC_LSB),
    localparam int R_BITS = lns_pkg::r_bits(GAMMA)
) (
    input  logic                        clk,
    input  logic [LANES-1:0]            visible,
    input  logic [LANES-1:0]            negative,
    input  logic [LANES*SHIFT_BITS-1:0] shift,
    input  logic [LANES*R_BITS-1:0]     r,
    output logic signed [Y_BITS-1:0]    y
);
  localparam int PER_BIN = GAMMA / LUT_ENTRIES;
  localparam int TERM_BITS = lns_pkg::t_bits(BITS, GAMMA, ACC_LSB) + 1;
  localparam int P_BITS = TERM_BITS + $clog2(LANES);

  wire [LANES*TERM_BITS-1:0] term;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    lns_term #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB), .SCALED(0),
               .TERM_BITS(TERM_BITS)) u_term (
        .visible(visible[i]), .negative(negative[i]), .shift(shift[i*SHIFT_BITS+:SHIFT_BITS]), .r(r[i*R_BITS+:R_BITS]),
        .term(term[i*TERM_BITS+:TERM_BITS]));
  end

  wire [LUT_ENTRIES*Y_BITS-1:0] multiple;
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_bin
    wire [LANES*TERM_BITS-1:0] mine;
    for (genvar i = 0; i < LANES; i++) begin : g_mine
      assign mine[i*TERM_BITS+:TERM_BITS] = term[i*TERM_BITS+:TERM_BITS] & {TERM_BITS{32'(r[i*R_BITS+:R_BITS]) / PER_BIN == j}};
    end
    wire signed  [P_BITS-1:0] sum;
    logic signed [P_BITS-1:0] p;
    adder_tree #(.N(LANES), .W(TERM_BITS)) u_tree (.x(mine), .sum);
    always_ff @(posedge clk) p <= sum;
    localparam int C = lns_pkg::lut_constant(j, LUT_ENTRIES, LUT_BITS - 1);
    assign multiple[j*Y_BITS+:Y_BITS] = Y_BITS'(p) * Y_BITS'(C);
  end

  wire [2*Y_BITS-1:0] two;
  carry_save #(.N(LUT_ENTRIES), .W(Y_BITS)) u_constants (.x(multiple), .y(two));
  always_ff @(posedge clk) y <= two[Y_BITS-1:0] + two[2*Y_BITS-1:Y_BITS];
endmodule
