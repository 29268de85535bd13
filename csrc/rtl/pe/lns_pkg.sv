// Widths that follow from the parameters, and numbers that the hardware holds as constants: all computed at elaboration.
package lns_pkg;
  function automatic integer max(input integer a, input integer b);
    max = a > b ? a : b;
  endfunction

  // The largest quotient of a product.
  function automatic integer q_max(input integer bits, input integer gamma);
    q_max = 2 * (2 ** (bits - 1) - 1) / gamma;
  endfunction

  // Bits of a shifted one above the accumulator's unit.
  function automatic integer t_bits(input integer bits, input integer gamma, input integer acc_lsb);
    t_bits = max(q_max(bits, gamma) - acc_lsb + 1, 1);
  endfunction

  // Bits of a lane's shift.
  function automatic integer shift_bits(input integer bits, input integer gamma, input integer acc_lsb);
    shift_bits = $clog2(max(q_max(bits, gamma) - max(acc_lsb, 0), 1) + 1);
  endfunction

  // Bits of a remainder; gamma 1 has one that is always zero.
  function automatic integer r_bits(input integer gamma);
    r_bits = max($clog2(gamma), 1);
  endfunction

  // Bits of the signed constant times a shifted one: between Mitchell's line and a constant for each remainder both may be near 2.
  function automatic integer term_bits(input integer t, input integer lut_bits, input integer lut_entries, input integer gamma);
    term_bits = t + lut_bits + (lut_entries == 1 || lut_entries == gamma ? 0 : 1);
  endfunction

  // Results that may be on their way or wait: what is in flight at a result a clock, in a power of two.
  function automatic integer results(input integer rom);
    results = rom != 0 ? 4 : 8;
  endfunction

  // 2^(2^-i) * 2^64, rounded down.
  function automatic [131:0] root(input integer i);
    case (i)
      1: root = 132'h16a09e667f3bcc908;
      2: root = 132'h1306fe0a31b7152de;
      3: root = 132'h1172b83c7d517adcd;
      4: root = 132'h10b5586cf9890f629;
      5: root = 132'h1059b0d31585743ae;
      6: root = 132'h102c9a3e778060ee6;
      7: root = 132'h10163da9fb33356d8;
      default: root = 132'h100b1afa5abcbed61;
    endcase
  endfunction

  // 2^(j/n) * 2^64 for n up to 256, too small by less than 2^-60 of it: what is made of it below is never as near to a half.
  function automatic [131:0] power(input integer j, input integer n);
    integer i;
    power = 132'd1 << 64;
    for (i = 1; i <= 8; i = i + 1) if ((j & (n >> i)) != 0) power = (power * root(i)) >> 64;
  endfunction

  // C_j = round(2^(j/n) * 2^f).
  function automatic [31:0] lut_constant(input integer j, input integer n, input integer f);
    lut_constant = 32'((power(j, n) + (132'd1 << (63 - f))) >> (64 - f));
  endfunction

  // t_j = floor(2^((2j + 1) / (2 gamma)) * 2^23): a 24-bit mantissa above it rounds to more than j.
  function automatic [23:0] threshold(input integer j, input integer gamma);
    threshold = 24'(power(2 * j + 1, 2 * gamma) >> 41);
  endfunction
endpackage
