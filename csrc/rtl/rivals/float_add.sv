// The sum of two floating-point numbers, {sign, exponent, significand}, rounded to nearest, half to even.
//
// The exponent is the leading one's place in units of the smallest product, of which all numbers are multiples: none are
// subnormal. Zero is all zeros. An exponent beyond its bits is not caught: who chooses E_BITS sees to it.
module float_add #(
    parameter int P = 11,  // bits of the significand, with the leading one
    parameter int E_BITS = 6,
    localparam int BITS = 1 + E_BITS + P
) (
    input  logic [BITS-1:0] x,
    input  logic [BITS-1:0] y,
    output logic [BITS-1:0] sum
);
  localparam int W = P + 4;  // carry, significand, guard, round and sticky bit
  localparam int N_BITS = $clog2(W);
  localparam int D_BITS = $clog2(P + 3);

  wire swap = y[BITS-2:0] > x[BITS-2:0];
  wire [BITS-1:0] big = swap ? y : x;
  wire [BITS-1:0] small_one = swap ? x : y;
  wire [E_BITS-1:0] distance = big[P+:E_BITS] - small_one[P+:E_BITS];

  // The smaller one is aligned; a sticky bit tells whether anything falls below the round bit.
  wire [D_BITS-1:0] shift = 32'(distance) > P + 2 ? D_BITS'(P + 2) : D_BITS'(distance);
  wire [2*P+3:0] aligned = {small_one[P-1:0], (P + 4)'(0)} >> shift;
  wire [W-1:0] addend = {1'b0, aligned[2*P+3-:P+2], aligned[P+1:0] != '0};
  wire subtract = big[BITS-1] ^ small_one[BITS-1];
  wire [W-1:0] total = {1'b0, big[P-1:0], 3'b0} + (addend ^ {W{subtract}}) + W'(subtract);

  logic [N_BITS-1:0] zeros;  // in front
  always_comb begin
    zeros = '0;
    for (int i = 0; i < W; i++) if (total[i]) zeros = N_BITS'(W - 1 - i);
  end
  wire [W-1:0] normal = total << zeros;
  wire up = normal[3] && (normal[4] || normal[2:0] != '0);
  wire [P:0] rounded = {1'b0, normal[W-1-:P]} + (P + 1)'(up);
  wire [E_BITS-1:0] exponent = big[P+:E_BITS] + E_BITS'(1) - E_BITS'(zeros) + E_BITS'(rounded[P]);
  assign sum = total == '0 ? '0 : {big[BITS-1], exponent, rounded[P] | rounded[P-1], rounded[P-2:0]};
endmodule
