// Accumulators that saturate or wrap: a value is added to an entry, which `first` clears before.
module collector #(
    parameter int ACC_BITS = 24,
    parameter int IN_BITS = 24,
    parameter int WRAP = 0,
    parameter int ENTRIES = 16,
    localparam int ENTRY_BITS = $clog2(ENTRIES)
) (
    input  logic                       clk,
    input  logic                       valid,
    input  logic                       first,
    input  logic [ENTRY_BITS-1:0]      entry,
    input  logic signed [IN_BITS-1:0]  value,
    output logic signed [ACC_BITS-1:0] acc  // what the entry becomes with the clock
);
  localparam int N_BITS = (ACC_BITS > IN_BITS ? ACC_BITS : IN_BITS) + 1;
  wire [ACC_BITS-1:0] held;
  register_file #(.WIDTH(ACC_BITS), .WORDS(ENTRIES)) u_entries (
      .clk, .write(valid), .write_at(entry), .data(acc), .read_at(entry), .q(held));

  wire signed [ACC_BITS-1:0] start = $signed(held & {ACC_BITS{!first}});
  wire signed [N_BITS-1:0] next = N_BITS'(start) + N_BITS'(value);
  wire over = next != N_BITS'($signed(next[ACC_BITS-1:0]));
  wire signed [ACC_BITS-1:0] extreme = {next[N_BITS-1], {(ACC_BITS - 1) {~next[N_BITS-1]}}};
  assign acc = over && WRAP == 0 ? extreme : next[ACC_BITS-1:0];
endmodule
