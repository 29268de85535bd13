// A vector's products added in pairs, the sums in pairs, and so on: a stage each level. Lanes up to a power of two are zero.
module log_tree #(
    parameter int LANES = 32,
    parameter int ACC_BITS = 16,
    parameter int SATURATE = 0
) (
    input  logic                      clk,
    input  logic [LANES*ACC_BITS-1:0] x,
    output logic [ACC_BITS-1:0]       sum
);
  localparam int LEVELS = $clog2(LANES);
  localparam int LEAVES = 2 ** LEVELS;
  // Nodes: number 1 is the root, LEAVES to 2 * LEAVES - 1 are the leaves.
  wire [2*LEAVES*ACC_BITS-1:ACC_BITS] node;
  for (genvar i = 0; i < LEAVES; i++) begin : g_leaf
    if (i < LANES) begin : g_lane
      assign node[(LEAVES+i)*ACC_BITS+:ACC_BITS] = x[i*ACC_BITS+:ACC_BITS];
    end else begin : g_padding
      assign node[(LEAVES+i)*ACC_BITS+:ACC_BITS] = '0;
    end
  end
  for (genvar i = 1; i < LEAVES; i++) begin : g_node
    localparam int BELOW = LEVELS - $clog2(i + 1);  // levels between its operands and the leaves
    wire [ACC_BITS-1:0] left = node[2*i*ACC_BITS+:ACC_BITS];
    wire [ACC_BITS-1:0] right = node[(2*i+1)*ACC_BITS+:ACC_BITS];
    wire [ACC_BITS-1:0] added;
    logic [ACC_BITS-1:0] stage;
    if (((2 * i + 1) << BELOW) - LEAVES < LANES) begin : g_add
      log_add #(.U_BITS(ACC_BITS - 1), .SATURATE(SATURATE)) u_tree (.x(left), .y(right), .sum(added));
    end else begin : g_pass  // the right one has padding alone
      wire unused = &right;
      assign added = left;
    end
    always_ff @(posedge clk) stage <= added;
    assign node[i*ACC_BITS+:ACC_BITS] = stage;
  end
  assign sum = node[ACC_BITS+:ACC_BITS];
  if (LANES == 1) begin : g_no_stage
    wire unused = clk;
  end
endmodule
