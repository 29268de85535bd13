// The sum of two logarithms: the larger one, and a correction by their distance.
//
// A number is a sign over U_BITS bits of u = E - E_min + 1; zero is all zeros. log_correction
// is written by csrc.rtl.tables.
module log_add #(
    parameter int U_BITS = 15,
    parameter int SATURATE = 0,  // below the least number: that one instead of zero
    localparam int BITS = U_BITS + 1
) (
    input  logic [BITS-1:0] x,
    input  logic [BITS-1:0] y,
    output logic [BITS-1:0] sum
);
  wire [U_BITS-1:0] ux = x[U_BITS-1:0];
  wire [U_BITS-1:0] uy = y[U_BITS-1:0];
  wire [U_BITS:0] over_y = {1'b0, ux} - {1'b0, uy};
  wire [U_BITS-1:0] over_x = uy - ux;
  wire swap = over_y[U_BITS];
  wire [BITS-1:0] larger = swap ? y : x;
  wire alone = (swap ? ux : uy) == '0;
  wire [U_BITS-1:0] distance = swap ? over_x : over_y[U_BITS-1:0];

  wire subtract = x[BITS-1] ^ y[BITS-1];
  wire [U_BITS-1:0] correction;
  log_correction #(.U_BITS(U_BITS)) u_correction (.distance, .subtract, .correction);

  wire [U_BITS:0] u = {1'b0, larger[U_BITS-1:0]} + ({1'b0, correction} ^ {(U_BITS + 1) {subtract}}) + (U_BITS + 1)'(subtract);
  wire cancelled = subtract && distance == '0;
  wire below = subtract && (u[U_BITS] || u == '0);
  wire above = !subtract && u[U_BITS];
  wire [BITS-1:0] least = SATURATE != 0 ? {larger[BITS-1], U_BITS'(1)} : '0;
  wire [BITS-1:0] corrected = {larger[BITS-1], u[U_BITS-1:0] | {U_BITS{above}}};
  assign sum = alone ? larger : cancelled ? '0 : below ? least : corrected;
endmodule
