// A claim about all accumulators and scales: two clocks later, the code of the next larger accumulator is none of a smaller value,
// and the code of the negative accumulator is the negative code.
module convert_claim #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int ACC_BITS = 24,
    parameter int SCALE_BITS = 10,
    parameter int FLUSH = 0
) (
    input  logic                         clk,
    input  logic signed [ACC_BITS-1:0]   acc,
    input  logic signed [SCALE_BITS-1:0] scale,
    output logic                         holds
);
  localparam logic [ACC_BITS-1:0] LARGEST = {1'b0, {(ACC_BITS - 1) {1'b1}}};
  localparam logic [ACC_BITS-1:0] SMALLEST = {1'b1, {(ACC_BITS - 1) {1'b0}}};
  wire [BITS-1:0] code, next, minus;
  lns_convert #(.BITS(BITS), .GAMMA(GAMMA), .ACC_BITS(ACC_BITS), .SCALE_BITS(SCALE_BITS), .FLUSH(FLUSH)) u_code (
      .clk, .acc, .scale, .advance(1'b1), .code);
  lns_convert #(.BITS(BITS), .GAMMA(GAMMA), .ACC_BITS(ACC_BITS), .SCALE_BITS(SCALE_BITS), .FLUSH(FLUSH)) u_next (
      .clk, .acc(acc + ACC_BITS'(1)), .scale, .advance(1'b1), .code(next));
  lns_convert #(.BITS(BITS), .GAMMA(GAMMA), .ACC_BITS(ACC_BITS), .SCALE_BITS(SCALE_BITS), .FLUSH(FLUSH)) u_minus (
      .clk, .acc(-acc), .scale, .advance(1'b1), .code(minus));

  // Codes as integers in the order of their values.
  wire signed [BITS:0] rank = code[BITS-1] ? -$signed({2'b0, code[BITS-2:0]}) : $signed({2'b0, code[BITS-2:0]});
  wire signed [BITS:0] rank_next = next[BITS-1] ? -$signed({2'b0, next[BITS-2:0]}) : $signed({2'b0, next[BITS-2:0]});
  logic [2*ACC_BITS-1:0] accs;
  always_ff @(posedge clk) accs <= {accs[ACC_BITS-1:0], acc};
  wire [ACC_BITS-1:0] was = accs[2*ACC_BITS-1-:ACC_BITS];
  wire monotone = was == LARGEST || rank <= rank_next;
  wire symmetric = was == SMALLEST || minus == (code == '0 ? '0 : code ^ (BITS'(1) << (BITS - 1)));
  assign holds = monotone && symmetric && (code[BITS-2:0] != '0 || code == '0);
endmodule
