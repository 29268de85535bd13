// The sum of N signed numbers of W bits, number 0 in the lowest, exactly: a bit more on each level.
module lns_adder_tree #(
    parameter  int N = 2,
    parameter  int W = 8,
    localparam int S = W + $clog2(N)
) (
    input  logic        [N*W-1:0] x,
    output logic signed [S-1:0]   sum
);
  if (N == 1) begin : g_leaf
    assign sum = $signed(x);
  end else begin : g_node
    localparam int L = N / 2, H = N - L;
    wire signed [W+$clog2(L)-1:0] low;
    wire signed [W+$clog2(H)-1:0] high;
    lns_adder_tree #(.N(L), .W(W)) u_low (.x(x[L*W-1:0]), .sum(low));
    lns_adder_tree #(.N(H), .W(W)) u_high (.x(x[N*W-1:L*W]), .sum(high));
    assign sum = S'(low) + S'(high);
  end
endmodule
