// Accumulators in floating point: a number is added to an entry, which `first` clears before.
module float_collector #(
    parameter int P = 11,
    parameter int E_BITS = 6,
    parameter int ENTRIES = 16,
    localparam int BITS = 1 + E_BITS + P,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                  clk,
    input  logic                  valid,
    input  logic                  first,
    input  logic [ENTRY_BITS-1:0] entry,
    input  logic [BITS-1:0]       value,
    output logic [BITS-1:0]       acc  // what the entry becomes with the clock
);
  wire [BITS-1:0] held;
  register_file #(.WIDTH(BITS), .WORDS(ENTRIES)) u_entries (
      .clk, .write(valid), .write_at(entry), .data(acc), .read_at(entry), .q(held));
  float_add #(.P(P), .E_BITS(E_BITS)) u_add (.x(held & {BITS{!first}}), .y(value), .sum(acc));
endmodule
