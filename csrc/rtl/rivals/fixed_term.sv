// A product in units of 2^DROP: shifted, its magnitude cut; the bits inverted where it is negative, one less than the number.
module fixed_term #(
    parameter int P_BITS = 8,
    parameter int E_BITS = 5,
    parameter int DROP = 18,
    parameter int TERM_BITS = 19
) (
    input  logic                        negative,
    input  logic [P_BITS-1:0]           significand,
    input  logic [E_BITS-1:0]           exponent,
    output logic signed [TERM_BITS-1:0] term
);
  localparam int WIDE = TERM_BITS + DROP;
  wire [TERM_BITS-1:0] magnitude = TERM_BITS'((WIDE'(significand) << exponent) >> DROP);
  assign term = magnitude ^ {TERM_BITS{negative}};
endmodule
