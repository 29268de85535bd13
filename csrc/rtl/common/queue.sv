// Words in the order in which they came. Who pushes sees to it that no more than WORDS, a power of two, are in it.
module queue #(
    parameter int WIDTH = 8,
    parameter int WORDS = 4
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             push,
    input  logic [WIDTH-1:0] data,
    input  logic             pop,
    output logic             valid,
    output logic [WIDTH-1:0] q
);
  localparam int AT_BITS = $clog2(WORDS);
  logic [AT_BITS:0] head, tail;  // a bit more than an address tells full from empty
  assign valid = head != tail;
  register_file #(.WIDTH(WIDTH), .WORDS(WORDS)) u_words (
      .clk, .write(push), .write_at(tail[AT_BITS-1:0]), .data, .read_at(head[AT_BITS-1:0]), .q);
  always_ff @(posedge clk)
    if (rst) {head, tail} <= '0;
    else {head, tail} <= {head + (AT_BITS + 1)'(pop), tail + (AT_BITS + 1)'(push)};
endmodule
