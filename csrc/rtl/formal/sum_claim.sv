// A claim about all vectors: the tree's sum is that of the numbers, extended to its width.
module sum_claim #(
    parameter int N = 6,
    parameter int W = 4
) (
    input  logic [N*W-1:0] x,
    output logic           holds
);
  localparam int S = W + $clog2(N);
  wire signed [S-1:0] sum;
  adder_tree #(.N(N), .W(W)) u_tree (.x, .sum);
  logic signed [S-1:0] expected;
  always_comb begin
    expected = '0;
    for (int i = 0; i < N; i++) expected = expected + {{(S - W) {x[(i+1)*W-1]}}, x[i*W+:W]};
  end
  assign holds = sum == expected;
endmodule
