// For comparison with the PE: a vector of products of floating-point numbers that are added in floating point, rounded at each
// addition: by a tree of adders, a stage each level, and in the accumulator. The shell and its ports are the PE's.
module float_vector #(
    parameter int A_EXP = 4,  // bits of exponent and mantissa of an operand
    parameter int A_MAN = 3,
    parameter int B_EXP = 4,
    parameter int B_MAN = 3,
    parameter int LANES = 32,  // a power of two
    parameter int P = 11,      // bits of significands, with the leading one: at least those of a product
    parameter int ENTRIES = 16,
    parameter int HANDSHAKE = 1,
    localparam int A_BITS = 1 + A_EXP + A_MAN,
    localparam int B_BITS = 1 + B_EXP + B_MAN,
    localparam int P_BITS = A_MAN + B_MAN + 2,
    localparam int LEVELS = $clog2(LANES),
    localparam int OUT_E = $clog2(P_BITS + 2 ** A_EXP + 2 ** B_EXP - 4 + LEVELS + 16),  // holds sums of 2^16 vectors
    localparam int BITS = 1 + OUT_E + P,  // {sign, exponent, significand} as in float_add
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic                    in_valid,
    output logic                    in_ready,
    input  logic [LANES*A_BITS-1:0] in_a,
    input  logic [LANES*B_BITS-1:0] in_b,
    input  logic [ENTRY_BITS-1:0]   in_entry,
    input  logic                    in_first,
    input  logic                    in_last,
    output logic                    out_valid,
    input  logic                    out_ready,
    output logic [ENTRY_BITS-1:0]   out_entry,
    output logic [BITS-1:0]         out_acc
);
  localparam int E_BITS = (A_EXP > B_EXP ? A_EXP : B_EXP) + 1;
  localparam int STAGES = LEVELS + 2;
  require #(.HOLDS(A_EXP > 0 && B_EXP > 0)) u_formats ();
  require #(.HOLDS(LANES == 2 ** LEVELS && P >= P_BITS)) u_tree_size ();

  // Nodes of the tree: number 1 is its root, LANES to 2 * LANES - 1 are its leaves.
  logic [2*LANES*BITS-1:BITS] node;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    wire negative;
    wire [P_BITS-1:0] significand;
    wire [E_BITS-1:0] exponent;
    wire [BITS-1:0] number;
    product #(.A_EXP(A_EXP), .A_MAN(A_MAN), .B_EXP(B_EXP), .B_MAN(B_MAN)) u_product (
        .a(in_a[i*A_BITS+:A_BITS]), .b(in_b[i*B_BITS+:B_BITS]), .negative, .significand, .exponent);
    logic negative1;
    logic [P_BITS-1:0] significand1;
    logic [E_BITS-1:0] exponent1;
    always_ff @(posedge clk) {negative1, significand1, exponent1} <= {negative, significand, exponent};
    float_term #(.P_BITS(P_BITS), .E_BITS(E_BITS), .P(P), .OUT_E(OUT_E)) u_term (
        .negative(negative1), .significand(significand1), .exponent(exponent1), .number);
    always_ff @(posedge clk) node[(LANES+i)*BITS+:BITS] <= number;
  end
  for (genvar i = 1; i < LANES; i++) begin : g_node
    wire [BITS-1:0] sum;
    float_add #(.P(P), .E_BITS(OUT_E)) u_tree (.x(node[2*i*BITS+:BITS]), .y(node[(2*i+1)*BITS+:BITS]), .sum);
    always_ff @(posedge clk) node[i*BITS+:BITS] <= sum;
  end

  wire valid, first;
  wire [ENTRY_BITS-1:0] entry;
  wire [BITS-1:0] acc;
  float_collector #(.P(P), .E_BITS(OUT_E), .ENTRIES(ENTRIES)) u_collector (
      .clk, .valid, .first, .entry, .value(node[BITS+:BITS]), .acc);
  shell #(.STAGES(STAGES), .ACC_BITS(BITS), .ENTRIES(ENTRIES), .HANDSHAKE(HANDSHAKE), .RESULTS(2 ** $clog2(STAGES + 2))) u_shell (
      .clk, .rst, .in_valid, .in_ready, .in_entry, .in_first, .in_last, .valid, .first, .entry, .acc(acc),
      .out_valid, .out_ready, .out_entry, .out_acc(out_acc));
endmodule
