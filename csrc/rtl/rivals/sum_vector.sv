// For comparison with the PE: one term a lane, summed and accumulated as its bins are; what int8_vector and fp8_vector share.
//
// Two stages after the terms' own; entries and first as in lns_pe.
module sum_vector #(
    parameter int LANES = 32,
    parameter int W = 16,  // bits of a term
    parameter int ACC_BITS = 24,
    parameter int ENTRIES = 16,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                       clk,
    input  logic [LANES*W-1:0]         term,  // a clock after in_valid
    input  logic                       in_valid,
    input  logic [ENTRY_BITS-1:0]      in_entry,
    input  logic                       in_first,
    output logic signed [ACC_BITS-1:0] out_acc
);
  localparam int S_BITS = W + $clog2(LANES);
  wire signed  [S_BITS-1:0] sum;
  logic signed [S_BITS-1:0] sum2;
  adder_tree #(.N(LANES), .W(W)) u_tree (.x(term), .sum(sum));

  logic valid1, valid2, first1, first2;
  logic [ENTRY_BITS-1:0] entry1, entry2;
  always_ff @(posedge clk) begin
    {valid1, first1, entry1} <= {in_valid, in_first, in_entry};
    {valid2, first2, entry2} <= {valid1, first1, entry1};
    sum2 <= sum;
    out_acc <= acc;
  end
  wire signed [ACC_BITS-1:0] acc;
  collector #(.ACC_BITS(ACC_BITS), .IN_BITS(S_BITS), .ENTRIES(ENTRIES)) u_collector (
      .clk, .valid(valid2), .first(first2), .entry(entry2), .value(sum2), .acc);
endmodule
