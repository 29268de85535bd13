// A lane's product as a signed number of accumulator units: a word of a small ROM, shifted. `SCALED` words have the LUT's
// constant in them (the result is +-C_j * t), the others have not (+-t).
module lns_term #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LUT_ENTRIES = 8,
    parameter int LUT_BITS = 8,
    parameter int ACC_LSB = 14,
    parameter int SCALED = 1,
    parameter int TERM_BITS = 26,
    localparam int SHIFT_BITS = lns_pkg::shift_bits(BITS, GAMMA, ACC_LSB),
    localparam int R_BITS = lns_pkg::r_bits(GAMMA)
) (
    input  logic                        visible,
    input  logic                        negative,
    input  logic [SHIFT_BITS-1:0]       shift,
    input  logic [R_BITS-1:0]           r,
    output logic signed [TERM_BITS-1:0] term
);
  localparam int LOG_G = $clog2(GAMMA);
  localparam int PER_BIN = GAMMA / LUT_ENTRIES;
  localparam int LEFT = lns_pkg::max(-ACC_LSB, 0);
  localparam int WORD_BITS = LOG_G + (SCALED != 0 ? lns_pkg::term_bits(1, LUT_BITS, LUT_ENTRIES, GAMMA) : 2);
  localparam int STRIDE = 2 ** $clog2(WORD_BITS);  // an address then is no product
  localparam int WORDS = 2 ** R_BITS;

  wire [2*WORDS*STRIDE-1:0] words;
  for (genvar i = 0; i < WORDS; i++) begin : g_word
    localparam int C = SCALED != 0 ? lns_pkg::lut_constant(i / PER_BIN, LUT_ENTRIES, LUT_BITS - 1) : 1;
    localparam int MITCHELL = GAMMA + i % PER_BIN;
    localparam logic [STRIDE-1:0] WORD = STRIDE'(C) * STRIDE'(MITCHELL);
    assign words[i*STRIDE+:STRIDE] = WORD;
    assign words[(WORDS+i)*STRIDE+:STRIDE] = -WORD;
  end
  wire [R_BITS:0] address = {negative, r};
  wire signed [WORD_BITS-1:0] word = $signed(words[32'(address)*STRIDE+:WORD_BITS] & {WORD_BITS{visible}});
  // Exact: what would fall below the unit is not in r.
  wire signed [TERM_BITS+LOG_G-1:0] wide = ((TERM_BITS + LOG_G)'(word) <<< LEFT) <<< shift;
  assign term = TERM_BITS'(wide >>> LOG_G);
endmodule
