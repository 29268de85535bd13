// Words of which one is written and one read in a clock. Both addresses are decoded, so that only the words they name switch.
module register_file #(
    parameter int WIDTH = 8,
    parameter int WORDS = 4,
    localparam int AT_BITS = $clog2(WORDS)
) (
    input  logic               clk,
    input  logic               write,
    input  logic [AT_BITS-1:0] write_at,
    input  logic [WIDTH-1:0]   data,
    input  logic [AT_BITS-1:0] read_at,
    output logic [WIDTH-1:0]   q
);
  wire [WORDS*WIDTH-1:0] named;
  for (genvar i = 0; i < WORDS; i++) begin : g_word
    logic [WIDTH-1:0] word;
    always_ff @(posedge clk) if (write && write_at == AT_BITS'(i)) word <= data;
    assign named[i*WIDTH+:WIDTH] = word & {WIDTH{read_at == AT_BITS'(i)}};
  end
  always_comb begin
    q = '0;
    for (int i = 0; i < WORDS; i++) q = q | named[i*WIDTH+:WIDTH];
  end
endmodule
