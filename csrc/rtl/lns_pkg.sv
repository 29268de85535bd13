// Numbers that the hardware holds as constants, computed in integers at elaboration.
package lns_pkg;
  localparam int WIDE = 1024;  // enough for powers of 25-bit numbers up to gamma 16

  function automatic [WIDE-1:0] power(input [WIDE-1:0] base, input integer exponent);
    integer i;
    power = 1;
    for (i = 0; i < exponent; i = i + 1) power = power * base;
  endfunction

  // C_j = round(2^(j/n) * 2^f): the largest c with (2c - 1)^n <= 2^(j + n * (f + 1)).
  function automatic [31:0] lut_constant(input integer j, input integer n, input integer f);
    reg [WIDE-1:0] c, step;
    c = 0;
    for (step = 1 << (f + 1); step > 0; step = step >> 1)
      if (power(2 * (c + step) - 1, n) <= {{(WIDE - 1) {1'b0}}, 1'b1} << (j + n * (f + 1))) c = c + step;
    lut_constant = c[31:0];
  endfunction

  // t_j = floor(2^((2j + 1) / (2 gamma)) * 2^23): a 24-bit mantissa above it rounds to more than j.
  function automatic [31:0] threshold(input integer j, input integer gamma);
    reg [WIDE-1:0] t, step;
    t = 0;
    for (step = 1 << 23; step > 0; step = step >> 1)
      if (power(t + step, 2 * gamma) <= {{(WIDE - 1) {1'b0}}, 1'b1} << (2 * j + 1 + 46 * gamma)) t = t + step;
    threshold = t[31:0];
  endfunction

  function automatic integer max(input integer a, input integer b);
    max = a > b ? a : b;
  endfunction
endpackage
