// What surrounds the arithmetic of every vector: what goes along with a vector to its collector, and the results.
//
// Nothing waits within: a vector is taken only where a result of its own would find room in the queue at the end, so that no
// path leads from out_ready to in_ready. Without HANDSHAKE there is no queue, every vector is taken, and a result stands at the
// output for one clock.
module shell #(
    parameter int STAGES = 2,     // clocks from a vector to its sum at the collector
    parameter int ACC_BITS = 24,
    parameter int ENTRIES = 16,
    parameter int HANDSHAKE = 1,
    parameter int RESULTS = 4,    // that may be on their way or wait: at least STAGES + 2 for one a clock, a power of two
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic                  in_valid,
    output logic                  in_ready,
    input  logic [ENTRY_BITS-1:0] in_entry,
    input  logic                  in_first,
    input  logic                  in_last,
    output logic                  valid,  // the sum at the collector is a vector's: its first, its entry
    output logic                  first,
    output logic [ENTRY_BITS-1:0] entry,
    input  logic [ACC_BITS-1:0]   acc,    // what the entry becomes
    output logic                  out_valid,
    input  logic                  out_ready,
    output logic [ENTRY_BITS-1:0] out_entry,
    output logic [ACC_BITS-1:0]   out_acc
);
  require #(.HOLDS(HANDSHAKE == 0 || HANDSHAKE == 1)) u_handshake ();

  // A stage each ENTRY_BITS or bit, the first in the lowest.
  logic [STAGES-1:0] valids, firsts, lasts;
  logic [STAGES*ENTRY_BITS-1:0] entries;
  always_ff @(posedge clk) begin
    valids <= rst ? '0 : STAGES'({valids, in_valid && in_ready});
    firsts <= STAGES'({firsts, in_first});
    lasts <= STAGES'({lasts, in_last});
    entries <= (STAGES * ENTRY_BITS)'({entries, in_entry});
  end
  assign valid = valids[STAGES-1];
  assign first = firsts[STAGES-1];
  assign entry = entries[STAGES*ENTRY_BITS-1-:ENTRY_BITS];
  wire result = valid && lasts[STAGES-1];

  if (HANDSHAKE != 0) begin : g_queue
    logic [$clog2(RESULTS):0] under_way;  // results to come or in the queue
    wire sent = in_valid && in_ready && in_last;
    wire taken = out_valid && out_ready;
    assign in_ready = under_way != ($clog2(RESULTS) + 1)'(RESULTS);
    always_ff @(posedge clk)
      if (rst) under_way <= '0;
      else if (sent != taken) under_way <= sent ? under_way + 1'b1 : under_way - 1'b1;
    queue #(.WIDTH(ENTRY_BITS + ACC_BITS), .WORDS(RESULTS)) u_results (
        .clk, .rst, .push(result), .data({entry, acc}), .pop(taken), .valid(out_valid), .q({out_entry, out_acc}));
  end else begin : g_pulse
    wire unused = out_ready;
    assign in_ready = 1'b1;
    always_ff @(posedge clk) begin
      out_valid <= !rst && result;
      {out_entry, out_acc} <= {entry, acc};
    end
  end
endmodule
