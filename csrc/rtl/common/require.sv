// Stops elaboration where a parameter is out of range; Icarus, which has no tasks of elaboration, at the start of simulation.
module require #(
    parameter bit HOLDS = 1
);
`ifdef __ICARUS__
  initial if (!HOLDS) $fatal(1, "a parameter is out of range: %m");
`else
  if (!HOLDS) $error("a parameter is out of range");
`endif
endmodule
