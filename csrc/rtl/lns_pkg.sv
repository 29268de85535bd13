// Numbers that the hardware holds as constants, computed in integers at elaboration.
package lns_pkg;
  localparam int WIDE = 1024;  // enough for powers of 25-bit numbers up to gamma 16
  typedef logic [WIDE-1:0] wide_t;

  function automatic wide_t power(wide_t base, int exponent);
    wide_t product = 1;
    for (int i = 0; i < exponent; i++) product = product * base;
    return product;
  endfunction

  // C_j = round(2^(j/n) * 2^f): the largest c with (2c - 1)^n <= 2^(j + n * (f + 1)).
  function automatic int lut_constant(int j, int n, int f);
    wide_t c = 0;
    for (wide_t step = 1 << (f + 1); step > 0; step = step / 2)
      if (power(2 * (c + step) - 1, n) <= wide_t'(1) << (j + n * (f + 1))) c = c + step;
    return int'(c);
  endfunction

  // t_j = floor(2^((2j + 1) / (2 gamma)) * 2^23): a 24-bit mantissa above it rounds to more than j.
  function automatic int threshold(int j, int gamma);
    wide_t t = 0;
    for (wide_t step = 1 << 23; step > 0; step = step / 2)
      if (power(t + step, 2 * gamma) <= wide_t'(1) << (2 * j + 1 + 46 * gamma)) t = t + step;
    return int'(t);
  endfunction

  function automatic int max(int a, int b);
    return a > b ? a : b;
  endfunction
endpackage
