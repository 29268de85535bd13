"""The tables and figures of the papers, and some of ours, each a study of independent runs: ``lns-sim paper NAME``."""

from lns_sim.checks import check_choice
from lns_sim.studies.papers import halp, luq, madam, shiftquant, spread
from lns_sim.studies.papers.blocks import Blocks
from lns_sim.studies.papers.lns_madam import BaseFactor, Formats, LutEntries, UpdateWidth
from lns_sim.studies.papers.log_domain import LogDomain
from lns_sim.studies.papers.rivals import OnImages, OnLarge, OnText
from lns_sim.studies.papers.study import Study
from lns_sim.studies.papers.update_error import UpdateError

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        BaseFactor(),
        UpdateWidth(),
        LutEntries(),
        UpdateError(),
        Formats(),
        madam.LearningRates(),
        madam.Integer(),
        halp.LeastSquares(),
        halp.Grid(),
        halp.BitCentered(),
        luq.Training(),
        luq.Rounding(),
        luq.Samples(),
        spread.Roundings(),
        shiftquant.Gradients(),
        shiftquant.L1Norms(),
        shiftquant.Variance(),
        shiftquant.Landscape(),
        spread.Channels(),
        OnImages(),
        OnText(),
        OnLarge(),
        LogDomain(),
        Blocks(),
    )
}


def chosen(names: list[str]) -> list[Study]:
    """Studies by name, or all of a paper by the beginning of their names, in the order given; "all": every one.

    Raises:
        ValueError: there is none of that name.
    """
    found: dict[str, Study] = {}
    for name in names:
        fits = {n: s for n, s in STUDIES.items() if name == "all" or n == name or n.startswith(f"{name}-")}
        if not fits:
            check_choice("study", name, STUDIES)
        found |= fits
    return list(found.values())
