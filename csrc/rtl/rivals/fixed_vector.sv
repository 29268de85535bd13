// For comparison with the PE: a vector of products of integers or floating-point numbers, summed in fixed point.
//
// The PE's shell, stages, tree and collector. Floating-point products are cut in magnitude FRACTION bits below the accumulator's
// unit and then summed exactly; the vector's sum is cut to the unit, towards minus infinity as the PE's.
module fixed_vector #(
    parameter int A_EXP = 4,     // bits of exponent and mantissa of an operand; 0 and all bits: an integer
    parameter int A_MAN = 3,
    parameter int B_EXP = 4,
    parameter int B_MAN = 3,
    parameter int LANES = 32,
    parameter int ACC_BITS = 24,
    parameter int UNIT = 18,     // bits of a product below the accumulator's unit, from the smallest product
    parameter int FRACTION = 0,  // of which so many are kept till the vector's sum
    parameter int ENTRIES = 16,
    parameter int HANDSHAKE = 1,
    localparam int A_BITS = A_EXP == 0 ? A_MAN : 1 + A_EXP + A_MAN,
    localparam int B_BITS = B_EXP == 0 ? B_MAN : 1 + B_EXP + B_MAN,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [LANES*A_BITS-1:0]    in_a,
    input  logic [LANES*B_BITS-1:0]    in_b,
    input  logic [ENTRY_BITS-1:0]      in_entry,
    input  logic                       in_first,
    input  logic                       in_last,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [ENTRY_BITS-1:0]      out_entry,
    output logic signed [ACC_BITS-1:0] out_acc
);
  localparam int SHIFTS = (A_EXP == 0 ? 0 : 2 ** A_EXP - 2) + (B_EXP == 0 ? 0 : 2 ** B_EXP - 2);  // the largest exponent
  localparam int P_BITS = (A_EXP == 0 ? A_MAN : A_MAN + 1) + (B_EXP == 0 ? B_MAN : B_MAN + 1);
  localparam int E_BITS = (A_EXP > B_EXP ? A_EXP : B_EXP) + 1;
  localparam int DROP = UNIT - FRACTION;
  localparam int TERM_BITS = SHIFTS == 0 ? P_BITS : P_BITS + SHIFTS - DROP + 1;
  localparam int S_BITS = TERM_BITS + $clog2(LANES + 2);
  localparam int Z_BITS = S_BITS - FRACTION;
  require #(.HOLDS(FRACTION >= 0 && DROP >= 0 && (SHIFTS > 0 || UNIT == 0))) u_fraction ();
  require #(.HOLDS(TERM_BITS > $clog2(LANES + 1))) u_count_bits ();

  // Products, and these as terms of one width.
  wire [LANES-1:0] inverted;
  wire [LANES*TERM_BITS-1:0] term;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    wire [A_BITS-1:0] a = in_a[i*A_BITS+:A_BITS];
    wire [B_BITS-1:0] b = in_b[i*B_BITS+:B_BITS];
    if (SHIFTS == 0) begin : g_integer
      wire signed  [P_BITS-1:0] p;
      logic signed [P_BITS-1:0] p1;
      integer_product #(.A_BITS(A_BITS), .B_BITS(B_BITS)) u_product (.a, .b, .p);
      always_ff @(posedge clk) p1 <= p;
      assign term[i*TERM_BITS+:TERM_BITS] = p1;
      assign inverted[i] = 1'b0;
    end else begin : g_float
      wire negative;
      wire [P_BITS-1:0] significand;
      wire [E_BITS-1:0] exponent;
      product #(.A_EXP(A_EXP), .A_MAN(A_MAN), .B_EXP(B_EXP), .B_MAN(B_MAN)) u_product (
          .a, .b, .negative, .significand, .exponent);
      logic negative1;
      logic [P_BITS-1:0] significand1;
      logic [E_BITS-1:0] exponent1;
      always_ff @(posedge clk) {negative1, significand1, exponent1} <= {negative, significand, exponent};
      assign inverted[i] = negative1;
      fixed_term #(.P_BITS(P_BITS), .E_BITS(E_BITS), .DROP(DROP), .TERM_BITS(TERM_BITS)) u_term (
          .negative(negative1), .significand(significand1), .exponent(exponent1), .term(term[i*TERM_BITS+:TERM_BITS]));
    end
  end

  // Their sum. Negative terms are only inverted; a count of them makes good what that takes away.
  localparam int COUNT_BITS = $clog2(LANES + 1);
  wire [LANES*COUNT_BITS-1:0] ones;
  for (genvar i = 0; i < LANES; i++) begin : g_one
    assign ones[i*COUNT_BITS+:COUNT_BITS] = COUNT_BITS'(inverted[i]);
  end
  wire [2*COUNT_BITS-1:0] count;
  wire [2*TERM_BITS-1:0] corrections = {TERM_BITS'(count[COUNT_BITS+:COUNT_BITS]), TERM_BITS'(count[COUNT_BITS-1:0])};
  wire signed  [S_BITS-1:0] sum;
  logic signed [S_BITS-1:0] y;
  carry_save #(.N(LANES), .W(COUNT_BITS)) u_count (.x(ones), .y(count));
  adder_tree #(.N(LANES + 2), .W(TERM_BITS)) u_tree (.x({corrections, term}), .sum);
  always_ff @(posedge clk) y <= sum;

  // Align and accumulate.
  wire signed [Z_BITS-1:0] z = Z_BITS'(y >>> FRACTION);
  wire valid, first;
  wire [ENTRY_BITS-1:0] entry;
  wire signed [ACC_BITS-1:0] acc;
  collector #(.ACC_BITS(ACC_BITS), .IN_BITS(Z_BITS), .ENTRIES(ENTRIES)) u_collector (
      .clk, .valid, .first, .entry, .value(z), .acc);
  shell #(.STAGES(2), .ACC_BITS(ACC_BITS), .ENTRIES(ENTRIES), .HANDSHAKE(HANDSHAKE), .RESULTS(4)) u_shell (
      .clk, .rst, .in_valid, .in_ready, .in_entry, .in_first, .in_last, .valid, .first, .entry, .acc(acc),
      .out_valid, .out_ready, .out_entry, .out_acc(out_acc));
endmodule
