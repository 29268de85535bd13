// One bin: the signed sum of the lanes whose remainder belongs to it.
module lns_bin #(
    parameter  int LANES = 32,
    parameter  int T_BITS = 18,
    parameter  int BIN_BITS = 3,
    parameter  int INDEX = 0,
    localparam int P_BITS = T_BITS + 1 + $clog2(LANES)
) (
    input  logic        [LANES*T_BITS-1:0]   t,
    input  logic        [LANES-1:0]          negative,
    input  logic        [LANES*BIN_BITS-1:0] bin,
    output logic signed [P_BITS-1:0]         sum
);
  wire [LANES*(T_BITS+1)-1:0] term;
  for (genvar i = 0; i < LANES; i++) begin : g_term
    wire [T_BITS:0] value = {1'b0, t[i*T_BITS+:T_BITS]};
    wire mine = bin[i*BIN_BITS+:BIN_BITS] == BIN_BITS'(INDEX);
    assign term[i*(T_BITS+1)+:T_BITS+1] = !mine ? '0 : negative[i] ? -value : value;
  end
  lns_adder_tree #(.N(LANES), .W(T_BITS + 1)) u_tree (.x(term), .sum(sum));
endmodule
