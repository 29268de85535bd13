// A claim about all sequences of inputs, once there was a reset: a result that is not taken stands still, and there are never more
// results under way than the queues hold. What carries the induction is that the count of them is that of the stages and the queue.
module flow_claim #(
    parameter int BITS = 3,
    parameter int GAMMA = 2,
    parameter int LUT_BITS = 4,
    parameter int ACC_BITS = 4,
    parameter int ACC_LSB = 1,
    parameter int ROM = 1,
    localparam int SCALE_BITS = 3,
    localparam int RESULTS = lns_pkg::results(ROM),
    localparam int COUNT_BITS = $clog2(RESULTS) + 1
) (
    input  logic                         clk,
    input  logic                         rst,
    input  logic                         in_valid,
    input  logic [BITS-1:0]              in_a,
    input  logic [BITS-1:0]              in_b,
    input  logic                         in_entry,
    input  logic                         in_first,
    input  logic                         in_last,
    input  logic signed [SCALE_BITS-1:0] in_scale,
    input  logic                         out_ready,
    output logic                         holds
);
  wire in_ready, out_valid, out_entry;
  wire signed [ACC_BITS-1:0] out_acc;
  wire [BITS-1:0] out_code;
  lns_datapath #(.BITS(BITS), .GAMMA(GAMMA), .LANES(1), .LUT_ENTRIES(GAMMA), .LUT_BITS(LUT_BITS), .ACC_BITS(ACC_BITS),
                 .ACC_LSB(ACC_LSB), .ENTRIES(2), .SCALE_BITS(SCALE_BITS), .ROM(ROM)) u_dut (
      .clk, .rst, .in_valid, .in_ready, .in_a, .in_b, .in_entry, .in_first, .in_last, .in_scale, .out_valid, .out_ready,
      .out_entry, .out_acc, .out_code);

  // Within the design, connected by claims.py.
  localparam int STAGES = ROM != 0 ? 2 : 3;
  wire pe_valid, pe_entry, advance;
  wire [ACC_BITS-1:0] pe_acc;
  wire [STAGES-1:0] valids, lasts;
  wire [COUNT_BITS-1:0] under_way, head, tail, scale_head, scale_tail;

  logic started = 1'b0;
  logic stalled, stalled_pe;
  logic [ACC_BITS+BITS:0] result;
  logic [ACC_BITS:0] result_pe;
  logic [COUNT_BITS-1:0] sent;  // results to come or at the PE's output, counted by what is taken at the ports
  wire pe_taken = pe_valid && advance;
  always_ff @(posedge clk) begin
    started <= started || rst;
    stalled <= out_valid && !out_ready && !rst;
    stalled_pe <= pe_valid && !advance && !rst;
    result <= {out_entry, out_acc, out_code};
    result_pe <= {pe_entry, pe_acc};
    sent <= rst ? '0 : sent + COUNT_BITS'(in_valid && in_ready && in_last) - COUNT_BITS'(pe_taken);
  end

  logic [COUNT_BITS-1:0] counted;
  wire [COUNT_BITS-1:0] queued = tail - head;
  wire [COUNT_BITS-1:0] scales = scale_tail - scale_head;
  always_comb begin
    counted = queued;
    for (int i = 0; i < STAGES; i++) counted = counted + COUNT_BITS'(valids[i] && lasts[i]);
  end
  wire still = !stalled || (out_valid && result == {out_entry, out_acc, out_code});
  wire still_pe = !stalled_pe || (pe_valid && result_pe == {pe_entry, pe_acc});
  wire few = sent <= COUNT_BITS'(RESULTS) && queued <= COUNT_BITS'(RESULTS);
  wire counts = sent == under_way && sent == counted && sent == scales;
  assign holds = !started || (still && still_pe && few && counts);
endmodule
