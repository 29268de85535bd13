// The sum of N signed numbers of W bits, number 0 in the lowest, exactly.
module adder_tree #(
    parameter int N = 2,
    parameter int W = 8,
    localparam int S = W + $clog2(N)
) (
    input  logic        [N*W-1:0] x,
    output logic signed [S-1:0]   sum
);
  if (N == 1) begin : g_one
    assign sum = x;
  end else begin : g_tree
    // Inverting a sign bit adds 2^(W-1), which makes a number one without a sign: it needs no extension. A last number takes
    // all of these away again.
    localparam logic [S-1:0] OFFSETS = S'(N) << (W - 1);
    wire [(N+1)*S-1:0] row;
    for (genvar i = 0; i < N; i++) begin : g_row
      assign row[i*S+:S] = S'({~x[(i+1)*W-1], x[i*W+:W-1]});
    end
    assign row[N*S+:S] = -OFFSETS;
    wire [2*S-1:0] two;
    carry_save #(.N(N + 1), .W(S)) u_carry_save (.x(row), .y(two));
    assign sum = two[S-1:0] + two[2*S-1:S];
  end
endmodule
