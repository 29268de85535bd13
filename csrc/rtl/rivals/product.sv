// One lane's product of two numbers (see operand), exactly: +-significand * 2^exponent in units of the smallest product.
module product #(
    parameter int A_EXP = 4,
    parameter int A_MAN = 3,
    parameter int B_EXP = 4,
    parameter int B_MAN = 3,
    localparam int A_BITS = A_EXP == 0 ? A_MAN : 1 + A_EXP + A_MAN,
    localparam int B_BITS = B_EXP == 0 ? B_MAN : 1 + B_EXP + B_MAN,
    localparam int A_SIG = A_EXP == 0 ? A_MAN : A_MAN + 1,
    localparam int B_SIG = B_EXP == 0 ? B_MAN : B_MAN + 1,
    localparam int A_E = A_EXP == 0 ? 1 : A_EXP,
    localparam int B_E = B_EXP == 0 ? 1 : B_EXP,
    localparam int P_BITS = A_SIG + B_SIG,
    localparam int E_BITS = (A_E > B_E ? A_E : B_E) + 1
) (
    input  logic [A_BITS-1:0] a,
    input  logic [B_BITS-1:0] b,
    output logic              negative,
    output logic [P_BITS-1:0] significand,
    output logic [E_BITS-1:0] exponent
);
  wire na, nb;
  wire [A_SIG-1:0] sa;
  wire [B_SIG-1:0] sb;
  wire [A_E-1:0] ea;
  wire [B_E-1:0] eb;
  operand #(.EXP_BITS(A_EXP), .MAN_BITS(A_MAN)) u_a (.x(a), .negative(na), .significand(sa), .exponent(ea));
  operand #(.EXP_BITS(B_EXP), .MAN_BITS(B_MAN)) u_b (.x(b), .negative(nb), .significand(sb), .exponent(eb));
  assign significand = P_BITS'(sa) * P_BITS'(sb);
  assign exponent = E_BITS'(ea) + E_BITS'(eb);
  assign negative = na ^ nb;
endmodule
