// A vector's products added lane by lane to an accumulator: a sum moves on by a lane a clock, and as many vectors are under way
// as there are lanes. With SKEWED lane i's product comes i clocks later than that of lane 0; else it waits for so long.
module log_chain #(
    parameter int LANES = 32,
    parameter int ACC_BITS = 16,
    parameter int SATURATE = 0,
    parameter int SKEWED = 0
) (
    input  logic                      clk,
    input  logic [ACC_BITS-1:0]       start,
    input  logic [LANES*ACC_BITS-1:0] x,
    output logic [ACC_BITS-1:0]       sum    // LANES - 1 clocks later
);
  wire [(LANES+1)*ACC_BITS-1:0] addend;  // each lane
  assign addend[ACC_BITS-1:0] = start;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    wire [ACC_BITS-1:0] product, added;
    if (i == 0 || SKEWED != 0) begin : g_now
      assign product = x[i*ACC_BITS+:ACC_BITS];
    end else begin : g_wait
      logic [i*ACC_BITS-1:0] waiting;
      always_ff @(posedge clk) waiting <= (i * ACC_BITS)'({waiting, x[i*ACC_BITS+:ACC_BITS]});
      assign product = waiting[i*ACC_BITS-1-:ACC_BITS];
    end
    log_add #(.U_BITS(ACC_BITS - 1), .SATURATE(SATURATE)) u_tree (
        .x(addend[i*ACC_BITS+:ACC_BITS]), .y(product), .sum(added));
    if (i < LANES - 1) begin : g_stage
      logic [ACC_BITS-1:0] stage;
      always_ff @(posedge clk) stage <= added;
      assign addend[(i+1)*ACC_BITS+:ACC_BITS] = stage;
    end else begin : g_last
      assign addend[(i+1)*ACC_BITS+:ACC_BITS] = added;
    end
  end
  assign sum = addend[LANES*ACC_BITS+:ACC_BITS];
  if (LANES == 1) begin : g_no_stage
    wire unused = clk;
  end
endmodule
