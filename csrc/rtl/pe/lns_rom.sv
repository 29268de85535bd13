// The sum of a vector by one tree: as all is linear within a vector, each lane may multiply by its bin's constant itself, and
// has but to look the multiple up. y follows a clock after the products.
module lns_rom #(
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
  localparam int TERM_BITS = Y_BITS - $clog2(LANES);
  wire [LANES*TERM_BITS-1:0] term;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    lns_term #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB),
               .TERM_BITS(TERM_BITS)) u_term (
        .visible(visible[i]), .negative(negative[i]), .shift(shift[i*SHIFT_BITS+:SHIFT_BITS]), .r(r[i*R_BITS+:R_BITS]),
        .term(term[i*TERM_BITS+:TERM_BITS]));
  end
  wire signed [Y_BITS-1:0] sum;
  adder_tree #(.N(LANES), .W(TERM_BITS)) u_tree (.x(term), .sum);
  always_ff @(posedge clk) y <= sum;
endmodule
