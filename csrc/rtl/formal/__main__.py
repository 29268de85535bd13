"""Proves with Yosys' SAT solver what holds for all inputs: lanes, sums, converters, the flow of results, and
additions in the log domain.

Run it: python -m csrc.rtl.formal (`make formal`; needs Yosys, Debian's package `yosys`).
"""

import sys

from csrc.rtl.formal.claims import claims, prove


def main() -> None:
    """Proves claim by claim, and says so."""
    for claim in claims():
        prove(claim)
        print(f"proved for all inputs: {claim.name}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
