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
    input  logic                        clk,
    input  logic                        rst,
    input  logic                        in_valid,
    output logic                        in_ready,
    input  logic [LANES-1:0][BITS-1:0]  in_a,
    input  logic [LANES-1:0][BITS-1:0]  in_b,
    input  logic [ENTRY_BITS-1:0]       in_entry,
    input  logic                        in_first,
    input  logic                        in_last,
    output logic                        out_valid,
    input  logic                        out_ready,
    output logic [ENTRY_BITS-1:0]       out_entry,
    output logic signed [ACC_BITS-1:0]  out_acc
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
  localparam int N_BITS = lns_pkg::max(ACC_BITS, Z_BITS) + 1;

  if (GAMMA != 2 ** $clog2(GAMMA) || LUT_ENTRIES != 2 ** $clog2(LUT_ENTRIES) || LUT_ENTRIES > GAMMA || GAMMA > 16)
    $error("GAMMA (up to 16) and LUT_ENTRIES (up to GAMMA) are powers of two");
  if (BITS < 2 || LANES < 1 || LUT_BITS < 2 || LUT_BITS > 24 || ACC_BITS < 4 || ACC_BITS > 32 || ENTRIES < 2)
    $error("BITS, LANES, LUT_BITS, ACC_BITS or ENTRIES is out of range");

  wire advance = !out_valid || out_ready;
  assign in_ready = advance;

  // What goes along with a vector.
  typedef struct packed {
    logic                  valid, first, last;
    logic [ENTRY_BITS-1:0] entry;
  } tag_t;
  tag_t tag1, tag2, tag3;

  // 1. Lanes.
  logic [LANES-1:0][T_BITS-1:0]   t, t1;
  logic [LANES-1:0]               negative, negative1;
  logic [LANES-1:0][BIN_BITS-1:0] bin, bin1;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    lns_lane #(.BITS(BITS), .GAMMA(GAMMA), .LUT_ENTRIES(LUT_ENTRIES), .ACC_LSB(ACC_LSB)) u_lane (
        .a(in_a[i]), .b(in_b[i]), .t(t[i]), .negative(negative[i]), .bin(bin[i]));
  end

  // 2. One signed sum a bin.
  wire signed  [P_BITS-1:0] sum[LUT_ENTRIES];
  logic signed [P_BITS-1:0] sum2[LUT_ENTRIES];
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_bin
    wire [LANES-1:0][T_BITS:0] term;
    for (genvar i = 0; i < LANES; i++) begin : g_term
      wire signed [T_BITS:0] value = $signed({1'b0, t1[i]});
      assign term[i] = bin1[i] != BIN_BITS'(j) ? '0 : negative1[i] ? -value : value;
    end
    lns_adder_tree #(.N(LANES), .W(T_BITS + 1)) u_tree (.x(term), .sum(sum[j]));
  end

  // 3. Constant multiplies, and their sum.
  wire [LUT_ENTRIES-1:0][M_BITS-1:0] multiple;
  wire signed  [Y_BITS-1:0] y;
  logic signed [Y_BITS-1:0] y3;
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_constant
    localparam logic signed [M_BITS-1:0] C = M_BITS'(lns_pkg::lut_constant(j, LUT_ENTRIES, F));
    assign multiple[j] = M_BITS'(sum2[j]) * C;
`ifndef SYNTHESIS
    always_ff @(posedge clk)
      if (tag2.valid && !rst)
        assert (longint'(sum2[j]) * longint'(C) == longint'($signed(multiple[j]))) else $error("the multiple of bin %0d overflows", j);
`endif
  end
  lns_adder_tree #(.N(LUT_ENTRIES), .W(M_BITS)) u_sum (.x(multiple), .sum(y));

  // 4. Align and accumulate.
  wire signed [Z_BITS-1:0] z = Z_BITS'(((Y_BITS + 1)'(y3) + (NEAREST != 0 ? (Y_BITS + 1)'(2 ** (F - 1)) : '0)) >>> F);
  logic signed [ACC_BITS-1:0] collector[ENTRIES];
  wire signed [ACC_BITS-1:0] held = tag3.first ? '0 : collector[tag3.entry];
  wire signed [N_BITS-1:0] next = N_BITS'(held) + N_BITS'(z);
  wire over = next != N_BITS'($signed(next[ACC_BITS-1:0]));
  wire signed [ACC_BITS-1:0] extreme = {next[N_BITS-1], {(ACC_BITS - 1) {~next[N_BITS-1]}}};
  wire signed [ACC_BITS-1:0] after = over && WRAP == 0 ? extreme : next[ACC_BITS-1:0];

  always_ff @(posedge clk) begin
    if (advance) begin
      tag1 <= '{valid: in_valid, first: in_first, last: in_last, entry: in_entry};
      {t1, negative1, bin1} <= {t, negative, bin};
      tag2 <= tag1;
      sum2 <= sum;
      tag3 <= tag2;
      y3 <= y;
      if (tag3.valid) collector[tag3.entry] <= after;
      out_valid <= tag3.valid && tag3.last;
      out_entry <= tag3.entry;
      out_acc <= after;
    end
    if (rst) begin
      tag1.valid <= 1'b0;
      tag2.valid <= 1'b0;
      tag3.valid <= 1'b0;
      out_valid <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  // No width is too small: the same sums in 64 bits.
  longint check_y;
  always_comb begin
    check_y = 0;
    for (int j = 0; j < LUT_ENTRIES; j++) check_y = check_y + longint'($signed(multiple[j]));
  end
  for (genvar j = 0; j < LUT_ENTRIES; j++) begin : g_check
    longint total;
    always_comb begin
      total = 0;
      for (int i = 0; i < LANES; i++)
        if (int'(bin1[i]) == j) total = negative1[i] ? total - longint'(t1[i]) : total + longint'(t1[i]);
    end
    always_ff @(posedge clk) if (tag1.valid && !rst) assert (total == longint'(sum[j])) else $error("bin %0d overflows", j);
  end
  always_ff @(posedge clk)
    if (!rst) begin
      if (tag2.valid) assert (check_y == longint'(y)) else $error("Y overflows");
      if (tag3.valid) assert ((longint'(y3) + (NEAREST != 0 ? longint'(2 ** (F - 1)) : 0)) >>> F == longint'(z)) else $error("Z overflows");
    end
`endif
endmodule
