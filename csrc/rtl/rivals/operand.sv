// A number as sign, significand and exponent: a two's complement integer of MAN_BITS if EXP_BITS is 0, else a floating-point
// number with subnormal ones. Codes of infinities and NaN are taken as the numbers that they would be.
module operand #(
    parameter int EXP_BITS = 4,
    parameter int MAN_BITS = 3,
    localparam int BITS = EXP_BITS == 0 ? MAN_BITS : 1 + EXP_BITS + MAN_BITS,
    localparam int SIG_BITS = EXP_BITS == 0 ? MAN_BITS : MAN_BITS + 1,
    localparam int E_BITS = EXP_BITS == 0 ? 1 : EXP_BITS
) (
    input  logic [BITS-1:0]     x,
    output logic                negative,
    output logic [SIG_BITS-1:0] significand,
    output logic [E_BITS-1:0]   exponent      // 0 for the smallest normal numbers, and for subnormal ones
);
  assign negative = x[BITS-1];
  if (EXP_BITS == 0) begin : g_integer
    assign significand = x[BITS-1] ? -x : x;
    assign exponent = '0;
  end else begin : g_float
    wire [EXP_BITS-1:0] e = x[BITS-2-:EXP_BITS];
    wire normal = e != '0;
    if (MAN_BITS == 0) begin : g_power
      assign significand = normal;
    end else begin : g_fraction
      assign significand = {normal, x[MAN_BITS-1:0]};
    end
    assign exponent = normal ? e - 1'b1 : '0;
  end
endmodule
