// A claim about all pairs of codes: a product in the log domain is what docs/arithmetic.md says, which is written down here as it
// stands there.
module log_product_claim #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int ACC_BITS = 16,
    parameter int ACC_GAMMA = 512,
    parameter int OFFSET = 3969,
    parameter int SATURATE = 0
) (
    input  logic [BITS-1:0] a,
    input  logic [BITS-1:0] b,
    output logic            holds
);
  localparam int E_MAX = 2 ** (ACC_BITS - 2) - 1;
  localparam int E_MIN = -E_MAX;
  wire [ACC_BITS-1:0] p;
  log_product #(.BITS(BITS), .GAMMA(GAMMA), .ACC_BITS(ACC_BITS), .ACC_GAMMA(ACC_GAMMA), .OFFSET(OFFSET), .SATURATE(SATURATE))
  u_product (.a, .b, .p);
  wire signed [31:0] e_a = 32'(a[BITS-2:0]);
  wire signed [31:0] e_b = 32'(b[BITS-2:0]);
  wire signed [31:0] e = (e_a + e_b) * (ACC_GAMMA / GAMMA) - OFFSET;
  wire zero = e_a == 0 || e_b == 0 || (e < E_MIN && SATURATE == 0);
  wire signed [31:0] held = e > E_MAX ? E_MAX : e < E_MIN ? E_MIN : e;
  wire [31:0] u = held - E_MIN + 1;
  assign holds = p == (zero ? '0 : {a[BITS-1] ^ b[BITS-1], u[ACC_BITS-2:0]});
endmodule
