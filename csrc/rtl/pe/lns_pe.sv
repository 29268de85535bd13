// The processing element: products of a vector of lanes, their sum by bins or by ROM, and a collector of accumulators.
//
// One vector a clock. A vector names the entry of the collector that it adds to; `first` clears the entry before, `last` sends
// it out. Ports and HANDSHAKE are the shell's.
module lns_pe #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int LANES = 32,
    parameter int LUT_ENTRIES = 8,
    parameter int LUT_BITS = 8,
    parameter int ACC_BITS = 24,
    parameter int ACC_LSB = 14,
    parameter int NEAREST = 0,  // align by rounding instead of truncation
    parameter int WRAP = 0,     // overflow wraps instead of saturating
    parameter int ENTRIES = 16,
    parameter int ROM = 1,      // the microarchitecture: lns_rom or lns_bins
    parameter int HANDSHAKE = 1,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [LANES*BITS-1:0]      in_a,  // lane 0 in the lowest bits
    input  logic [LANES*BITS-1:0]      in_b,
    input  logic [ENTRY_BITS-1:0]      in_entry,
    input  logic                       in_first,
    input  logic                       in_last,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [ENTRY_BITS-1:0]      out_entry,
    output logic signed [ACC_BITS-1:0] out_acc
);
  localparam int SHIFT_BITS = lns_pkg::shift_bits(BITS, GAMMA, ACC_LSB);
  localparam int R_BITS = lns_pkg::r_bits(GAMMA);
  localparam int Y_BITS = lns_pkg::term_bits(lns_pkg::t_bits(BITS, GAMMA, ACC_LSB), LUT_BITS, LUT_ENTRIES, GAMMA) + $clog2(LANES);
  localparam int F = LUT_BITS - 1;
  localparam int Z_BITS = Y_BITS - F + (NEAREST != 0 ? 1 : 0);
  localparam int STAGES = ROM != 0 ? 2 : 3;  // before the collector

  require #(.HOLDS(BITS >= 2 && BITS <= 16)) u_bits ();
  require #(.HOLDS(GAMMA >= 1 && GAMMA <= 128 && GAMMA == 2 ** $clog2(GAMMA) && GAMMA <= 2 ** (BITS - 1))) u_gamma ();
  require #(.HOLDS(LANES >= 1 && LANES <= 4096)) u_lanes ();
  require #(.HOLDS(LUT_ENTRIES >= 1 && LUT_ENTRIES <= GAMMA && LUT_ENTRIES == 2 ** $clog2(LUT_ENTRIES))) u_lut_entries ();
  require #(.HOLDS(LUT_BITS >= 2 && LUT_BITS <= 24)) u_lut_bits ();
  require #(.HOLDS(ACC_BITS >= 4 && ACC_BITS <= 32)) u_acc_bits ();
  require #(.HOLDS(ACC_LSB >= -(2 ** 17) && ACC_LSB <= 2 ** 17 && Y_BITS <= 64)) u_acc_lsb ();
  require #(.HOLDS(NEAREST == 0 || NEAREST == 1)) u_nearest ();
  require #(.HOLDS(WRAP == 0 || WRAP == 1)) u_wrap ();
  require #(.HOLDS(ENTRIES >= 2 && ENTRIES <= 4096)) u_entries ();
  require #(.HOLDS(ROM == 0 || ROM == 1)) u_rom ();

  // Products.
  wire [LANES-1:0] visible, negative;
  wire [LANES*SHIFT_BITS-1:0] shift;
  wire [LANES*R_BITS-1:0] r;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    lns_product #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .ACC_LSB(ACC_LSB)) u_product (
        .a(in_a[i*BITS+:BITS]), .b(in_b[i*BITS+:BITS]), .visible(visible[i]), .negative(negative[i]),
        .shift(shift[i*SHIFT_BITS+:SHIFT_BITS]), .r(r[i*R_BITS+:R_BITS]));
  end
  logic [LANES-1:0] visible1, negative1;
  logic [LANES*SHIFT_BITS-1:0] shift1;
  logic [LANES*R_BITS-1:0] r1;
  always_ff @(posedge clk) {visible1, negative1, shift1, r1} <= {visible, negative, shift, r};

  // Their sum, exactly, in units of the accumulator / 2^F.
  wire signed [Y_BITS-1:0] y;
  if (ROM != 0) begin : g_rom
    lns_rom #(.BITS(BITS), .GAMMA(GAMMA), .LANES(LANES), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB),
              .Y_BITS(Y_BITS)) u_rom (
        .clk, .visible(visible1), .negative(negative1), .shift(shift1), .r(r1), .y);
  end else begin : g_bins
    lns_bins #(.BITS(BITS), .GAMMA(GAMMA), .LANES(LANES), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB),
               .Y_BITS(Y_BITS)) u_bins (
        .clk, .visible(visible1), .negative(negative1), .shift(shift1), .r(r1), .y);
  end

  // Align and accumulate.
  localparam logic signed [Y_BITS:0] HALF = NEAREST != 0 ? (Y_BITS + 1)'(2 ** F / 2) : (Y_BITS + 1)'(0);
  wire signed [Z_BITS-1:0] z = Z_BITS'(((Y_BITS + 1)'(y) + HALF) >>> F);
  wire valid, first;
  wire [ENTRY_BITS-1:0] entry;
  wire signed [ACC_BITS-1:0] acc;
  collector #(.ACC_BITS(ACC_BITS), .IN_BITS(Z_BITS), .WRAP(WRAP), .ENTRIES(ENTRIES)) u_collector (
      .clk, .valid, .first, .entry, .value(z), .acc);

  shell #(.STAGES(STAGES), .ACC_BITS(ACC_BITS), .ENTRIES(ENTRIES), .HANDSHAKE(HANDSHAKE), .RESULTS(lns_pkg::results(ROM))) u_shell (
      .clk, .rst, .in_valid, .in_ready, .in_entry, .in_first, .in_last, .valid, .first, .entry, .acc(acc),
      .out_valid, .out_ready, .out_entry, .out_acc(out_acc));

`ifndef SYNTHESIS
  lns_check #(.GAMMA(GAMMA), .LANES(LANES), .LUT_ENTRIES(LUT_ENTRIES), .LUT_BITS(LUT_BITS), .ACC_LSB(ACC_LSB), .NEAREST(NEAREST),
              .DELAY(STAGES - 1), .SHIFT_BITS(SHIFT_BITS), .R_BITS(R_BITS), .Y_BITS(Y_BITS), .Z_BITS(Z_BITS)) u_check (
      .clk, .due(valid && !rst), .visible(visible1), .negative(negative1), .shift(shift1), .r(r1), .y, .z);
`endif
endmodule
