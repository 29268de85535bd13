// A claim about all pairs of codes: a lane's product and terms are what docs/arithmetic.md says, which is written down here as
// it stands there.
module lane_claim #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LUT_ENTRIES = 8,
    parameter int LUT_BITS = 8,
    parameter int ACC_LSB = 14
) (
    input  logic [BITS-1:0] a,
    input  logic [BITS-1:0] b,
    output logic            holds
);
  localparam int T_BITS = lns_pkg::t_bits(BITS, GAMMA, ACC_LSB);
  localparam int TERM_BITS = lns_pkg::term_bits(T_BITS, LUT_BITS, LUT_ENTRIES, GAMMA);
  localparam int SHIFT_BITS = lns_pkg::shift_bits(BITS, GAMMA, ACC_LSB);
  localparam int R_BITS = lns_pkg::r_bits(GAMMA);

  wire visible, negative;
  wire [SHIFT_BITS-1:0] shift;
  wire [R_BITS-1:0] remainder;
  wire signed [TERM_BITS-1:0] term;
  wire signed [T_BITS:0] one;
  lns_product #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .ACC_LSB(ACC_LSB)) u_product (
      .a, .b, .visible, .negative, .shift, .r(remainder));
  lns_term #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB),
             .TERM_BITS(TERM_BITS)) u_term (
      .visible, .negative, .shift, .r(remainder), .term);
  lns_term #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB), .SCALED(0),
             .TERM_BITS(T_BITS + 1)) u_one (
      .visible, .negative, .shift, .r(remainder), .term(one));

  localparam int PER_BIN = GAMMA / LUT_ENTRIES;
  localparam int LEFT = lns_pkg::max(-ACC_LSB, 0);
  localparam int RIGHT = lns_pkg::max(ACC_LSB, 0);
  localparam int W = lns_pkg::q_max(BITS, GAMMA) + LEFT + $clog2(GAMMA) + LUT_BITS + 3;  // of any number below, with its sign
  wire [LUT_ENTRIES*W-1:0] constants;
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_constant
    localparam logic [31:0] C = lns_pkg::lut_constant(j, LUT_ENTRIES, LUT_BITS - 1);
    assign constants[j*W+:W] = W'(C);
  end
  wire [31:0] p = 32'(a[BITS-2:0]) + 32'(b[BITS-2:0]);
  wire [31:0] q = p / GAMMA;
  wire [31:0] r = p % GAMMA;
  wire zero = a[BITS-2:0] == 0 || b[BITS-2:0] == 0;
  wire [W-1:0] t = zero ? '0 : ((W'(GAMMA + r % PER_BIN) << q) << LEFT) >> ($clog2(GAMMA) + RIGHT);
  wire [W-1:0] multiple = t * constants[(r/PER_BIN)*W+:W];
  wire minus = a[BITS-1] ^ b[BITS-1];
  assign holds = W'(term) == (minus ? -multiple : multiple) && W'(one) == (minus ? -t : t)
      && (t == 0 || 32'(remainder) / PER_BIN == r / PER_BIN);  // the bin
endmodule
