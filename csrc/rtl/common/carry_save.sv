// N numbers of W bits as two that have the same sum modulo 2^W: threes become twos, level by level, and no carry runs.
module carry_save #(
    parameter int N = 3,
    parameter int W = 8
) (
    input  logic [N*W-1:0] x,  // number 0 in the lowest bits
    output logic [2*W-1:0] y
);
  localparam int THREES = N / 3;
  localparam int LEFT = N - THREES;
  if (N <= 2) begin : g_two
    assign y = (2 * W)'(x);
  end else begin : g_level
    wire [LEFT*W-1:0] z;
    if (N > 3 * THREES) begin : g_rest  // first, so that they are among the next level's threes
      assign z[(N-3*THREES)*W-1:0] = x[N*W-1:3*THREES*W];
    end
    for (genvar i = 0; i < THREES; i++) begin : g_three
      wire [W-1:0] a = x[3*i*W+:W];
      wire [W-1:0] b = x[(3*i+1)*W+:W];
      wire [W-1:0] c = x[(3*i+2)*W+:W];
      wire [W-1:0] carry = (a & b) | (c & (a ^ b));
      assign z[(N-3*THREES+2*i)*W+:W] = a ^ b ^ c;
      assign z[(N-3*THREES+2*i+1)*W+:W] = carry << 1;
    end
    carry_save #(.N(LEFT), .W(W)) u_next (.x(z), .y(y));
  end
endmodule
