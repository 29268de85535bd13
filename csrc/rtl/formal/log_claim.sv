// A claim about all pairs of numbers: a sum of logarithms does not depend on their order, zero leaves the other number, of equal
// signs no sum is smaller than the larger number and of different ones none is larger, and a sum is zero or has a magnitude.
module log_claim #(
    parameter int ACC_BITS = 16,
    parameter int SATURATE = 0
) (
    input  logic [ACC_BITS-1:0] x,
    input  logic [ACC_BITS-1:0] y,
    output logic                holds
);
  localparam int U_BITS = ACC_BITS - 1;
  wire [ACC_BITS-1:0] sum, other;
  log_add #(.U_BITS(U_BITS), .SATURATE(SATURATE)) u_sum (.x, .y, .sum);
  log_add #(.U_BITS(U_BITS), .SATURATE(SATURATE)) u_other (.x(y), .y(x), .sum(other));

  wire [U_BITS-1:0] ux = x[U_BITS-1:0];
  wire [U_BITS-1:0] uy = y[U_BITS-1:0];
  wire [U_BITS-1:0] u = sum[U_BITS-1:0];
  wire [ACC_BITS-1:0] larger = uy > ux ? y : x;
  wire numbers = (ux != '0 || !x[U_BITS]) && (uy != '0 || !y[U_BITS]);  // zero has no sign
  wire some = ux != '0 && uy != '0;
  wire equal = x[U_BITS] == y[U_BITS];
  wire cancels = ux == uy && !equal;
  wire in_range = u != '0 || !sum[U_BITS];
  wire neutral = some || sum == larger;
  wire rises = !some || !equal || (u >= larger[U_BITS-1:0] && sum[U_BITS] == larger[U_BITS]);
  wire falls = !some || equal || cancels || (u <= larger[U_BITS-1:0] && (sum[U_BITS] == larger[U_BITS] || u == '0));
  wire vanishes = !some || !cancels || sum == '0;
  wire kept = SATURATE == 0 || !some || cancels || u != '0;
  assign holds = !numbers || (sum == other && in_range && neutral && rises && falls && vanishes && kept);
endmodule
