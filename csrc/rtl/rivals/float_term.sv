// A product of P_BITS as a floating-point number of P >= P_BITS, as float_add takes it.
module float_term #(
    parameter int P_BITS = 8,
    parameter int E_BITS = 5,
    parameter int P = 11,
    parameter int OUT_E = 6,
    localparam int BITS = 1 + OUT_E + P
) (
    input  logic              negative,
    input  logic [P_BITS-1:0] significand,
    input  logic [E_BITS-1:0] exponent,
    output logic [BITS-1:0]   number
);
  localparam int N_BITS = $clog2(P_BITS);
  logic [N_BITS-1:0] place;
  always_comb begin
    place = '0;
    for (int i = 0; i < P_BITS; i++) if (significand[i]) place = N_BITS'(i);
  end
  wire [P-1:0] normal = (P'(significand) << (P - P_BITS)) << (N_BITS'(P_BITS - 1) - place);
  assign number = significand == '0 ? '0 : {negative, OUT_E'(exponent) + OUT_E'(place), normal};
endmodule
