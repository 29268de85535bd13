// PE and post-processing: vectors of codes in, accumulators and their codes out.
module lns_datapath #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LANES = 32,
    parameter int LUT_ENTRIES = 8,
    parameter int LUT_BITS = 8,
    parameter int ACC_BITS = 24,
    parameter int ACC_LSB = 14,
    parameter int NEAREST = 0,
    parameter int WRAP = 0,
    parameter int ENTRIES = 16,
    parameter int SCALE_BITS = 10,
    parameter int FLUSH = 0,
    parameter int ROM = 1,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                         clk,
    input  logic                         rst,
    input  logic                         in_valid,
    output logic                         in_ready,
    input  logic [LANES*BITS-1:0]        in_a,  // lane 0 in the lowest bits
    input  logic [LANES*BITS-1:0]        in_b,
    input  logic [ENTRY_BITS-1:0]        in_entry,
    input  logic                         in_first,
    input  logic                         in_last,
    input  logic signed [SCALE_BITS-1:0] in_scale,  // read with the last vector of a dot product
    output logic                         out_valid,
    input  logic                         out_ready,
    output logic [ENTRY_BITS-1:0]        out_entry,
    output logic signed [ACC_BITS-1:0]   out_acc,
    output logic [BITS-1:0]              out_code
);
  logic pe_valid, valid1;
  logic [ENTRY_BITS-1:0] pe_entry, entry1;
  logic signed [ACC_BITS-1:0] pe_acc, acc1;
  wire advance = !out_valid || out_ready;

  lns_pe #(.BITS(BITS), .GAMMA(GAMMA), .LANES(LANES), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_BITS(ACC_BITS),
           .ACC_LSB(ACC_LSB), .NEAREST(NEAREST), .WRAP(WRAP), .ENTRIES(ENTRIES), .ROM(ROM)) u_pe (
      .clk, .rst, .in_valid, .in_ready, .in_a, .in_b, .in_entry, .in_first, .in_last,
      .out_valid(pe_valid), .out_ready(advance), .out_entry(pe_entry), .out_acc(pe_acc));

  // Results keep their order, and so do their scales.
  wire signed [SCALE_BITS-1:0] scale;
  wire scaled;
  queue #(.WIDTH(SCALE_BITS), .WORDS(lns_pkg::results(ROM))) u_scales (
      .clk, .rst, .push(in_valid && in_ready && in_last), .data(in_scale), .pop(pe_valid && advance), .valid(scaled), .q(scale));

  lns_convert #(.BITS(BITS), .GAMMA(GAMMA), .ACC_BITS(ACC_BITS), .SCALE_BITS(SCALE_BITS), .FLUSH(FLUSH)) u_convert (
      .clk, .acc(pe_acc), .scale, .advance, .code(out_code));

  // The accumulator goes along while its code is made.
  always_ff @(posedge clk) begin
    if (advance) begin
      {valid1, entry1, acc1} <= {pe_valid, pe_entry, pe_acc};
      {out_valid, out_entry, out_acc} <= {valid1, entry1, acc1};
    end
    if (rst) {valid1, out_valid} <= '0;
  end
`ifndef SYNTHESIS
  always @(posedge clk) if (!rst) assert (scaled || !pe_valid) else $error("a result has no scale");
`endif
endmodule
