// The processing element: a vector of lanes, bins by remainder, one constant multiply a bin, and a collector of accumulators.
//
// Four stages, one vector a clock. A vector names the entry of the collector that it adds to; `first` clears the entry before,
// `last` sends it out. A stage waits while the output is not taken.
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
  localparam int BIN_BITS = lns_pkg::max($clog2(LUT_ENTRIES), 1);
  localparam int Q_MAX = 2 * (2 ** (BITS - 1) - 1) / GAMMA;
  localparam int T_BITS = lns_pkg::max(Q_MAX - ACC_LSB + 1, 1);
  localparam int P_BITS = T_BITS + 1 + $clog2(LANES);
  localparam int C_BITS = LUT_BITS + 1;            // few-bit constants may round up to 2^LUT_BITS
  localparam int M_BITS = P_BITS + C_BITS;
  localparam int Y_BITS = M_BITS + $clog2(LUT_ENTRIES);
  localparam int F = LUT_BITS - 1;
  localparam int Z_BITS = Y_BITS - F + 1;

  if (GAMMA != 2 ** $clog2(GAMMA) || LUT_ENTRIES != 2 ** $clog2(LUT_ENTRIES) || LUT_ENTRIES > GAMMA || GAMMA > 16)
    $error("GAMMA (up to 16) and LUT_ENTRIES (up to GAMMA) are powers of two");
  if (BITS < 2 || LANES < 1 || LUT_BITS < 2 || LUT_BITS > 24 || ACC_BITS < 4 || ACC_BITS > 32 || ENTRIES < 2)
    $error("BITS, LANES, LUT_BITS, ACC_BITS or ENTRIES is out of range");

  wire advance = !out_valid || out_ready;
  assign in_ready = advance;

  // What goes along with a vector.
  logic valid1, valid2, valid3, first1, first2, first3, last1, last2, last3;
  logic [ENTRY_BITS-1:0] entry1, entry2, entry3;

  // 1. Lanes.
  wire  [LANES*T_BITS-1:0]   t;
  logic [LANES*T_BITS-1:0]   t1;
  wire  [LANES-1:0]          negative;
  logic [LANES-1:0]          negative1;
  wire  [LANES*BIN_BITS-1:0] bin;
  logic [LANES*BIN_BITS-1:0] bin1;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    lns_lane #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .ACC_LSB(ACC_LSB)) u_lane (
        .a(in_a[i*BITS+:BITS]), .b(in_b[i*BITS+:BITS]), .t(t[i*T_BITS+:T_BITS]), .negative(negative[i]),
        .bin(bin[i*BIN_BITS+:BIN_BITS]));
  end

  // 2. One signed sum a bin.
  wire  [LUT_ENTRIES*P_BITS-1:0] sum;
  logic [LUT_ENTRIES*P_BITS-1:0] sum2;
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_bin
    lns_bin #(.LANES(LANES), .T_BITS(T_BITS), .BIN_BITS(BIN_BITS), .INDEX(j)) u_bin (
        .t(t1), .negative(negative1), .bin(bin1), .sum(sum[j*P_BITS+:P_BITS]));
  end

  // 3. Constant multiplies, and their sum.
  wire [LUT_ENTRIES*M_BITS-1:0] multiple;
  wire signed  [Y_BITS-1:0] y;
  logic signed [Y_BITS-1:0] y3;
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_constant
    localparam signed [M_BITS-1:0] C = M_BITS'(lns_pkg::lut_constant(j, LUT_ENTRIES, F));
    wire signed [M_BITS-1:0] p = M_BITS'($signed(sum2[j*P_BITS+:P_BITS]));
    wire signed [M_BITS-1:0] m = p * C;
    assign multiple[j*M_BITS+:M_BITS] = m;
`ifndef SYNTHESIS
    always_ff @(posedge clk)
      if (valid2 && !rst)
        assert (longint'(p) * longint'(C) == longint'(m)) else $error("the multiple of bin %0d overflows", j);
`endif
  end
  lns_adder_tree #(.N(LUT_ENTRIES), .W(M_BITS)) u_sum (.x(multiple), .sum(y));

  // 4. Align and accumulate.
  wire signed [Z_BITS-1:0] z = Z_BITS'(((Y_BITS + 1)'(y3) + (NEAREST != 0 ? (Y_BITS + 1)'(2 ** (F - 1)) : '0)) >>> F);
  collector #(.ACC_BITS(ACC_BITS), .IN_BITS(Z_BITS), .WRAP(WRAP), .ENTRIES(ENTRIES)) u_collector (
      .clk, .valid(valid3 && advance), .first(first3), .entry(entry3), .value(z), .acc(out_acc));

  always_ff @(posedge clk) begin
    if (advance) begin
      {valid1, first1, last1, entry1} <= {in_valid, in_first, in_last, in_entry};
      {t1, negative1, bin1} <= {t, negative, bin};
      {valid2, first2, last2, entry2} <= {valid1, first1, last1, entry1};
      sum2 <= sum;
      {valid3, first3, last3, entry3} <= {valid2, first2, last2, entry2};
      y3 <= y;
      out_valid <= valid3 && last3;
      out_entry <= entry3;
    end
    if (rst) begin
      valid1 <= 1'b0;
      valid2 <= 1'b0;
      valid3 <= 1'b0;
      out_valid <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  // No width is too small: the same sums in 64 bits.
  longint check_y;
  always_comb begin
    check_y = 0;
    for (int j = 0; j < LUT_ENTRIES; j++) check_y = check_y + longint'($signed(multiple[j*M_BITS+:M_BITS]));
  end
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_check
    longint total;
    always_comb begin
      total = 0;
      for (int i = 0; i < LANES; i++)
        if (bin1[i*BIN_BITS+:BIN_BITS] == BIN_BITS'(j))
          total = negative1[i] ? total - longint'(t1[i*T_BITS+:T_BITS]) : total + longint'(t1[i*T_BITS+:T_BITS]);
    end
    always_ff @(posedge clk) if (valid1 && !rst) assert (total == longint'($signed(sum[j*P_BITS+:P_BITS]))) else $error("bin %0d overflows", j);
  end
  always_ff @(posedge clk)
    if (!rst) begin
      if (valid2) assert (check_y == longint'(y)) else $error("Y overflows");
      if (valid3) assert ((longint'(y3) + (NEAREST != 0 ? longint'(2 ** (F - 1)) : 0)) >>> F == longint'(z)) else $error("Z overflows");
    end
`endif
endmodule
