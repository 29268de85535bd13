// Accumulators in the log domain: one is read, and zero if `first`; one is written.
module log_collector #(
    parameter int ACC_BITS = 16,
    parameter int ENTRIES = 16,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                  clk,
    input  logic                  first,
    input  logic [ENTRY_BITS-1:0] read_at,
    output logic [ACC_BITS-1:0]   start,
    input  logic                  write,
    input  logic [ENTRY_BITS-1:0] write_at,
    input  logic [ACC_BITS-1:0]   acc
);
  wire [ACC_BITS-1:0] held;
  register_file #(.WIDTH(ACC_BITS), .WORDS(ENTRIES)) u_entries (.clk, .write, .write_at, .data(acc), .read_at, .q(held));
  assign start = held & {ACC_BITS{!first}};
endmodule
