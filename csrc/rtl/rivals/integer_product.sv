// One lane's product of two's complement integers.
module integer_product #(
    parameter int A_BITS = 8,
    parameter int B_BITS = 8
) (
    input  logic [A_BITS-1:0]               a,
    input  logic [B_BITS-1:0]               b,
    output logic signed [A_BITS+B_BITS-1:0] p
);
  assign p = (A_BITS + B_BITS)'($signed(a)) * (A_BITS + B_BITS)'($signed(b));
endmodule
