// Post-processing: an accumulator back to a code, by its leading one and the midpoints between codes.
//
// The code of acc * 2^scale, `scale` being acc_lsb + k_a + k_b - k_out in octaves. Two stages. More than 24 bits are rounded to
// 24 first, half to even, as a float32 would.
module lns_convert #(
    parameter int BITS = 8,
    parameter int GAMMA = 8,
    parameter int ACC_BITS = 24,
    parameter int SCALE_BITS = 10,
    parameter int FLUSH = 0  // below the smallest code: zero instead of the smallest code
) (
    input  logic                         clk,
    input  logic signed [ACC_BITS-1:0]   acc,
    input  logic signed [SCALE_BITS-1:0] scale,
    input  logic                         advance,
    output logic [BITS-1:0]              code
);
  localparam int LOG_G = $clog2(GAMMA);
  localparam int M_BITS = lns_pkg::max(ACC_BITS, 24);
  localparam int POSITION_BITS = $clog2(M_BITS);
  localparam int E_BITS = lns_pkg::max(lns_pkg::max(SCALE_BITS, POSITION_BITS + 1) + LOG_G + 2, BITS + 1);
  localparam logic signed [E_BITS-1:0] E_MAX = E_BITS'(2 ** (BITS - 1) - 1);

  require #(.HOLDS(BITS >= 2 && BITS <= 16)) u_bits ();
  require #(.HOLDS(GAMMA >= 1 && GAMMA <= 128 && GAMMA == 2 ** LOG_G)) u_gamma ();
  require #(.HOLDS(ACC_BITS >= 4 && ACC_BITS <= 32)) u_acc_bits ();
  require #(.HOLDS(SCALE_BITS >= 2 && SCALE_BITS <= 24)) u_scale_bits ();
  require #(.HOLDS(FLUSH == 0 || FLUSH == 1)) u_flush ();

  // 1. Leading one; the mantissa aligned to it.
  wire [ACC_BITS-1:0] magnitude = acc[ACC_BITS-1] ? -acc : acc;
  logic [POSITION_BITS-1:0] position;
  always_comb begin
    position = '0;
    for (int i = 0; i < ACC_BITS; i++) if (magnitude[i]) position = POSITION_BITS'(i);
  end
  wire [M_BITS-1:0] aligned = M_BITS'(magnitude) << (POSITION_BITS'(M_BITS - 1) - position);

  logic [M_BITS-1:0] aligned1;
  logic [POSITION_BITS-1:0] position1;
  logic negative1, zero1;
  logic signed [SCALE_BITS-1:0] scale1;
  always_ff @(posedge clk)
    if (advance) begin
      {aligned1, position1, scale1} <= {aligned, position, scale};
      negative1 <= acc[ACC_BITS-1];
      zero1 <= acc == '0;
    end

  // 2. 24 bits; how many midpoints lie below; the exponent clamped to the format.
  logic [24:0] mantissa;
  if (M_BITS == 24) begin : g_exact
    assign mantissa = {1'b0, aligned1};
  end else begin : g_rounded
    localparam int R = M_BITS - 24;
    wire [R-1:0] rest = aligned1[R-1:0];
    wire up = rest[R-1] && (R'(rest << 1) != '0 || aligned1[R]);
    assign mantissa = {1'b0, aligned1[M_BITS-1:R]} + 25'(up);
  end
  // Rounded up to the next power of two, all bits but the carry are zero: no midpoint lies below, one octave higher.
  wire carry = mantissa[24];
  wire [23:0] fraction = carry ? 24'h800000 : mantissa[23:0];
  logic [GAMMA-1:0] above;
  for (genvar j = 0; j < GAMMA; j++) begin : g_midpoint
    localparam logic [23:0] T = lns_pkg::threshold(j, GAMMA);
    assign above[j] = fraction > T;
  end
  logic signed [E_BITS-1:0] e;
  always_comb begin
    e = (E_BITS'(scale1) + E_BITS'($signed({1'b0, position1})) + E_BITS'($signed({1'b0, carry}))) <<< LOG_G;
    for (int j = 0; j < GAMMA; j++) e = e + E_BITS'($signed({1'b0, above[j]}));
  end
  wire below = e < 1;
  wire [BITS-2:0] clamped = (BITS - 1)'(below ? E_BITS'(1) : e > E_MAX ? E_MAX : e);
  always_ff @(posedge clk) if (advance) code <= zero1 || (below && FLUSH != 0) ? '0 : {negative1, clamped};
endmodule
