// A processing element that never leaves the logarithm: products of a vector of lanes, their sum by additions of logarithms, and
// accumulators that are logarithms.
//
// TREE: a vector's products are added as a tree, and their sum to the accumulator: a vector a clock. Otherwise they are added to
// the accumulator lane by lane: a vector a clock, as long as LANES entries take turns; one whose entry is still under way waits.
// Without HANDSHAKE it cannot be made to wait: who sends leaves LANES clocks between two vectors of an entry. Ports and
// HANDSHAKE are the shell's; a number is log_add's.
module log_pe #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LANES = 32,
    parameter int ACC_BITS = 16,
    parameter int ACC_GAMMA = 512,
    parameter int OFFSET = 3969,
    parameter int TREE = 1,
    parameter int SATURATE = 0,  // what lies below the least number becomes it instead of zero
    parameter int SKEWED = 0,    // without TREE: lane i's operands come i clocks later than those of lane 0
    parameter int ENTRIES = 16,
    parameter int HANDSHAKE = 1,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic                  in_valid,
    output logic                  in_ready,
    input  logic [LANES*BITS-1:0] in_a,  // lane 0 in the lowest bits
    input  logic [LANES*BITS-1:0] in_b,
    input  logic [ENTRY_BITS-1:0] in_entry,
    input  logic                  in_first,
    input  logic                  in_last,
    output logic                  out_valid,
    input  logic                  out_ready,
    output logic [ENTRY_BITS-1:0] out_entry,
    output logic [ACC_BITS-1:0]   out_acc
);
  localparam int STAGES = TREE != 0 ? $clog2(LANES) + 1 : LANES;
  require #(.HOLDS(BITS >= 2 && BITS <= 16)) u_bits ();
  require #(.HOLDS(GAMMA >= 1 && GAMMA == 2 ** $clog2(GAMMA) && GAMMA <= 2 ** (BITS - 1))) u_gamma ();
  require #(.HOLDS(LANES >= 1 && LANES <= 4096)) u_lanes ();
  require #(.HOLDS(ACC_BITS >= 4 && ACC_BITS <= 20)) u_acc_bits ();
  require #(.HOLDS(ACC_GAMMA >= GAMMA && ACC_GAMMA <= 8192 && ACC_GAMMA == 2 ** $clog2(ACC_GAMMA))) u_acc_gamma ();
  require #(.HOLDS(OFFSET >= -(2 ** 30) && OFFSET <= 2 ** 30)) u_offset ();
  require #(.HOLDS(TREE == 0 || TREE == 1)) u_order ();
  require #(.HOLDS(SATURATE == 0 || SATURATE == 1)) u_saturate ();
  require #(.HOLDS(SKEWED == 0 || (SKEWED == 1 && TREE == 0))) u_skewed ();
  require #(.HOLDS(ENTRIES >= 2 && ENTRIES <= 4096)) u_entries ();

  // Products.
  wire [LANES*ACC_BITS-1:0] product;
  logic [LANES*ACC_BITS-1:0] product1;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    log_product #(.BITS(BITS), .GAMMA(GAMMA), .ACC_BITS(ACC_BITS), .ACC_GAMMA(ACC_GAMMA), .OFFSET(OFFSET), .SATURATE(SATURATE))
    u_product (
        .a(in_a[i*BITS+:BITS]), .b(in_b[i*BITS+:BITS]), .p(product[i*ACC_BITS+:ACC_BITS]));
  end
  always_ff @(posedge clk) product1 <= product;

  // Their sum with an accumulator.
  wire valid, first, room, busy, read_first;
  wire [ENTRY_BITS-1:0] entry, read_at;
  wire [ACC_BITS-1:0] start, acc;
  log_collector #(.ACC_BITS(ACC_BITS), .ENTRIES(ENTRIES)) u_collector (
      .clk, .first(read_first), .read_at, .start, .write(valid), .write_at(entry), .acc);
  if (TREE != 0) begin : g_tree
    wire [ACC_BITS-1:0] sum;
    log_tree #(.LANES(LANES), .ACC_BITS(ACC_BITS), .SATURATE(SATURATE)) u_levels (
        .clk, .x(product1), .sum);
    log_add #(.U_BITS(ACC_BITS - 1), .SATURATE(SATURATE)) u_tree (.x(start), .y(sum), .sum(acc));
    assign {busy, read_first, read_at} = {1'b0, first, entry};
  end else begin : g_chain
    log_chain #(.LANES(LANES), .ACC_BITS(ACC_BITS), .SATURATE(SATURATE), .SKEWED(SKEWED)) u_lanes (
        .clk, .start, .x(product1), .sum(acc));
    logic first1;
    logic [ENTRY_BITS-1:0] entry1;
    always_ff @(posedge clk) {first1, entry1} <= {in_first, in_entry};
    assign {read_first, read_at} = {first1, entry1};
    wire unused = first;
    if (LANES > 1 && HANDSHAKE != 0) begin : g_busy
      // The entries whose sums the next vector would come too early for, the last to come in the lowest bits.
      logic [LANES-2:0] valids, same;
      logic [(LANES-1)*ENTRY_BITS-1:0] entries;
      always_ff @(posedge clk) begin
        valids <= rst ? '0 : (LANES - 1)'({valids, in_valid && in_ready});
        entries <= ((LANES - 1) * ENTRY_BITS)'({entries, in_entry});
      end
      for (genvar i = 0; i < LANES - 1; i++) begin : g_same
        assign same[i] = valids[i] && entries[i*ENTRY_BITS+:ENTRY_BITS] == in_entry;
      end
      assign busy = same != '0;
    end else begin : g_free
      assign busy = 1'b0;
    end
  end

  assign in_ready = room && !busy;
  shell #(.STAGES(STAGES), .ACC_BITS(ACC_BITS), .ENTRIES(ENTRIES), .HANDSHAKE(HANDSHAKE), .RESULTS(2 ** $clog2(STAGES + 2)))
  u_shell (
      .clk, .rst, .in_valid(in_valid && !busy), .in_ready(room), .in_entry, .in_first, .in_last, .valid, .first, .entry, .acc(acc),
      .out_valid, .out_ready, .out_entry, .out_acc(out_acc));
endmodule
