// For comparison with the PE: a vector of 8-bit floating-point (E4M3) products, aligned to the accumulator's unit as the PE's
// shifted ones are (magnitudes truncated), summed and accumulated in the same way.
//
// Three stages, one vector a clock; entries, first and last as in lns_pe. NaN codes are taken as the numbers that they would be.
module fp8_vector #(
    parameter int LANES = 32,
    parameter int ACC_BITS = 24,
    parameter int DROP = 18,  // bits of a product below the accumulator's unit, counted from the smallest product, 2^-18
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
  localparam int WIDE = 8 + 28;  // mantissa product, shifted by up to 14 + 14
  localparam int T_BITS = WIDE - DROP;
  logic [LANES*(T_BITS+1)-1:0] term1;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    wire [7:0] a = in_a[i*8+:8];
    wire [7:0] b = in_b[i*8+:8];
    // Mantissas with the hidden one, which subnormal numbers have not; their exponent is that of the smallest normal ones.
    wire [7:0] product = 8'({a[6:3] != 4'd0, a[2:0]}) * 8'({b[6:3] != 4'd0, b[2:0]});
    wire [3:0] ea = a[6:3] == 4'd0 ? 4'd0 : a[6:3] - 4'd1;
    wire [3:0] eb = b[6:3] == 4'd0 ? 4'd0 : b[6:3] - 4'd1;
    wire [4:0] shift = {1'b0, ea} + {1'b0, eb};
    wire [T_BITS:0] magnitude = (T_BITS + 1)'((WIDE'(product) << shift) >> DROP);
    always_ff @(posedge clk) term1[i*(T_BITS+1)+:T_BITS+1] <= a[7] ^ b[7] ? -magnitude : magnitude;
  end
  sum_vector #(.LANES(LANES), .W(T_BITS + 1), .ACC_BITS(ACC_BITS), .ENTRIES(ENTRIES)) u_sum (
      .clk, .term(term1), .in_valid, .in_entry, .in_first, .out_acc);
endmodule
