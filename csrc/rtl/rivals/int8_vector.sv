// For comparison with the PE: a vector of 8-bit integer products, summed and accumulated in the same way.
//
// Three stages, one vector a clock; entries, first and last as in lns_pe. Products of 16 bits are summed exactly.
module int8_vector #(
    parameter int LANES = 32,
    parameter int ACC_BITS = 24,
    parameter int ENTRIES = 16,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                       clk,
    input  logic                       in_valid,
    input  logic [LANES*8-1:0]         in_a,
    input  logic [LANES*8-1:0]         in_b,
    input  logic [ENTRY_BITS-1:0]      in_entry,
    input  logic                       in_first,
    output logic signed [ACC_BITS-1:0] out_acc
);
  logic [LANES*16-1:0] product1;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    wire signed [15:0] p = 16'($signed(in_a[i*8+:8])) * 16'($signed(in_b[i*8+:8]));
    always_ff @(posedge clk) product1[i*16+:16] <= p;
  end
  sum_vector #(.LANES(LANES), .W(16), .ACC_BITS(ACC_BITS), .ENTRIES(ENTRIES)) u_sum (
      .clk, .term(product1), .in_valid, .in_entry, .in_first, .out_acc);
endmodule
