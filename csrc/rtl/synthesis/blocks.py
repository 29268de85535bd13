"""What a design's blocks are called in tables, in the order of the data: by the instances of :mod:`netlist`."""

BLOCKS = {
    "registers": "registers",  # operands, too
    "product": "products",
    "term": "terms",  # shifts, ROMs
    "tree": "trees",
    "": "other",  # constants, alignment, control
    "collector": "collector",
    "results": "queue",
    "clock": "clock",
}
# What turns operands into a vector's sum: all between registers and collector.
CONVERSION = ("products", "terms", "trees", "other")
