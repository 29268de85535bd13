"""Technologies by name."""

from __future__ import annotations

from pathlib import Path

from lns_sim.studies.energy.paper_prices import Paper
from lns_sim.studies.energy.price_file import PriceFile
from lns_sim.studies.energy.technology import Technology

MEASURED = Path(__file__).with_name("measured.toml")  # written by `make cells`


def get(technology: str | Technology) -> Technology:
    """A technology by name: "paper", "measured" (this project's RTL on real cells) or the path of a price file.

    Raises:
        ValueError: another name, or a file that is no price file.
        OSError: the file cannot be read.
    """
    if isinstance(technology, Technology):
        return technology
    if technology == "paper":
        return Paper()
    if technology == "measured":
        return PriceFile(MEASURED, "measured")
    if not technology.endswith(".toml"):
        raise ValueError(f"technology must be paper, measured or a price file.toml, got {technology!r}")
    return PriceFile(Path(technology), Path(technology).name)
