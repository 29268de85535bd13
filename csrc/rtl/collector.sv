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
    output logic signed [ACC_BITS-1:0] acc
);
  localparam int N_BITS = (ACC_BITS > IN_BITS ? ACC_BITS : IN_BITS) + 1;
  logic signed [ACC_BITS-1:0] entries[0:ENTRIES-1];
  wire signed [ACC_BITS-1:0] held = first ? '0 : entries[entry];
  wire signed [N_BITS-1:0] next = N_BITS'(held) + N_BITS'(value);
  wire over = next != N_BITS'($signed(next[ACC_BITS-1:0]));
  wire signed [ACC_BITS-1:0] extreme = {next[N_BITS-1], {(ACC_BITS - 1) {~next[N_BITS-1]}}};
  wire signed [ACC_BITS-1:0] after = over && WRAP == 0 ? extreme : next[ACC_BITS-1:0];
  always_ff @(posedge clk) if (valid) begin
    entries[entry] <= after;
    acc <= after;
  end
endmodule
