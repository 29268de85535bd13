"""What commands share: the options of formats and datapaths and of what is shown, and errors as one sentence."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from lns_sim.cli.console import Output
from lns_sim.cli.errors import user_errors
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.distributed import started
from lns_sim.format import LNSFormat
from lns_sim.log_datapath import LogDatapath
from lns_sim.log_tables import LogTables
from lns_sim.recipes import Recipe

PANEL = "Formats and datapath"
LOG_PANEL = "A datapath that adds logarithms, instead of a linear one"

# By name: type, what it is, and what holds where neither option nor recipe says.
FORMATS = {
    "bits": (int, "bits of a code", LNSFormat.bits),
    "gamma": (int, "base factor: codes per octave", LNSFormat.gamma),
    "update_bits": (int, "bits of a weight between steps", Recipe.update.bits),
}
DATAPATH = {
    "vector_size": (int, "lanes per accumulation", Datapath.vector_size),
    "lut_entries": (int, "constants", "gamma"),
    "lut_bits": (int, "bits of a constant", Datapath.lut_bits),
    "acc_bits": (int, "bits of the accumulator", Datapath.acc_bits),
    "acc_lsb": (int, "log2 of the accumulator's unit", "from --headroom-bits"),
    "headroom_bits": (int, "of the accumulator above the largest product", Datapath.headroom_bits),
    "rounding": (str, "truncate or nearest", Datapath.rounding),
    "overflow": (str, "saturate or wrap", Datapath.overflow),
    "lut_constants": (str, "the constants themselves, e.g. 128,152,181,215", "the paper's"),
    "product_offset": (int, "taken off the sum of two exponents, twice the codes' bias", Datapath.product_offset),
    "product_range": (str, "lowest:highest exponent of a product, e.g. 0:200", "all"),
    "product_underflow": (str, "of products below the lowest: flush or saturate", Datapath.product_underflow),
    "bin_bits": (int, "bits of a bin's sum", "as many as it needs"),
    "bin_overflow": (str, "of bins: saturate or wrap", Datapath.bin_overflow),
    "bins": (str, "joint, or signed: bins of their own for either sign", Datapath.bins),
    "keep_fraction": (bool, "a vector's sum is accumulated with its fraction, not aligned", "no"),
}
LOG_DATAPATH = {
    "log_acc_bits": (int, "bits of the accumulator", LogDatapath.acc_bits),
    "log_acc_gamma": (int, "its steps per octave", "2^(acc bits - 7)"),
    "log_offset": (int, "taken off a product's exponent, in these steps", "from --log-headroom-bits"),
    "log_headroom_bits": (int, "octaves above the largest product", LogDatapath.headroom_bits),
    "log_tables": (
        str,
        "exact, shift, coarse:DROP, or a .json file with plus and minus, and kind where it is segments",
        LogDatapath.tables.kind,
    ),
    "log_vector_size": (int, "lanes per vector", LogDatapath.vector_size),
    "log_order": (str, "sequential, or tree over the lanes of --log-vector-size", LogDatapath.order),
    "log_underflow": (str, "of what lies below the least number: flush or saturate", LogDatapath.underflow),
}
_SEPARATORS = {"lut_constants": ",", "product_range": ":"}
_SHOWN = {
    "quiet": Annotated[bool, typer.Option("--quiet", help="show nothing but errors")],
    "as_json": Annotated[bool, typer.Option("--json", help="print the result as JSON instead of tables")],
    "debug": Annotated[bool, typer.Option("--debug", help="show an error's traceback")],
}


def flag(name: str) -> str:
    """The option of a parameter."""
    return f"--{name.replace('_', '-')}"


def given(ctx: typer.Context) -> dict[str, Any]:
    """The parameters that stand on the command line."""
    named = (name for name in ctx.params if ctx.get_parameter_source(name).name == "COMMANDLINE")
    return {name: ctx.params[name] for name in named}  # by the source's name: typer may have a click of its own


def refuse(ctx: typer.Context, names: Iterable[str], why: str) -> None:
    """Raises ValueError where one of these options was given, which would change nothing."""
    if idle := [flag(name) for name in names if name in given(ctx)]:
        raise ValueError(f"{', '.join(idle)} would change nothing: {why}")


def _options(known: dict[str, tuple[type, str, Any]]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                kind | None,
                typer.Option(
                    flag(name),
                    help=text,
                    show_default=str(default),
                    rich_help_panel=LOG_PANEL if name in LOG_DATAPATH else PANEL,
                ),
            ],
        )
        for name, (kind, text, default) in known.items()
    ]


def integers_of(name: str, text: str, separator: str) -> tuple[int, ...]:
    """What a parameter's option lists.

    Raises:
        ValueError: something else than integers.
    """
    try:
        return tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise ValueError(f"{flag(name)} takes integers separated by {separator!r}, got {text!r}") from None


def _changes(known: dict, arguments: dict) -> dict[str, Any]:
    """The options that were given, taken out of the arguments; lists as tuples."""
    found = {name: value for name in known if (value := arguments.pop(name, None)) is not None}
    for idle, instead in (("headroom_bits", "acc_lsb"), ("log_headroom_bits", "log_offset")):
        if {idle, instead} <= found.keys():
            raise ValueError(f"{flag(idle)} would change nothing beside {flag(instead)}, in whose place it stands")
    for name in found.keys() & _SEPARATORS.keys():
        found[name] = integers_of(name, found[name], _SEPARATORS[name])
    if "log_tables" in found:
        found["log_tables"] = tables_of(found["log_tables"])
    return found


def tables_of(text: str) -> LogTables:
    """The correction tables of a name or of a JSON file.

    Raises:
        ValueError: there are none.
        OSError: no such file.
    """
    if not text.endswith(".json"):
        return LogTables.of(text)
    try:
        found = json.loads(Path(text).read_text())
        return LogTables.of({"kind": "lists", **found} if isinstance(found, dict) else found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text}: {error}") from None


def _datapath(format: LNSFormat, changes: dict[str, Any]) -> AnyDatapath:
    log = {name.removeprefix("log_"): value for name, value in changes.items() if name in LOG_DATAPATH}
    linear = {name: value for name, value in changes.items() if name not in LOG_DATAPATH}
    if log and linear:
        raise ValueError(
            f"{', '.join(map(flag, linear))} cannot go with --log-...: a datapath is linear, or adds logarithms"
        )
    return LogDatapath(format, **log) if log else Datapath(format, **linear)


def command(function: Callable) -> Callable:
    """A command of a function.

    Of its parameters, ``changes`` becomes the options of formats and datapaths and is those that were given, by name;
    ``datapath`` becomes the same options and is the datapath that they make; ``output`` becomes --quiet, --json and
    --debug and is the :class:`lns_sim.cli.console.Output`.
    """
    own = inspect.signature(function, eval_str=True).parameters
    known: dict[str, Any] = {}
    if "changes" in own:
        known = {**FORMATS, **DATAPATH, **LOG_DATAPATH}
    elif "datapath" in own:
        known = {**{name: FORMATS[name] for name in ("bits", "gamma")}, **DATAPATH, **LOG_DATAPATH}

    @functools.wraps(function)
    def run(**arguments):
        quiet, as_json, debug = (arguments.pop(name, False) for name in _SHOWN)
        with user_errors(debug):
            if started() > 1 and function.__name__ != "train":
                raise ValueError(
                    f"torchrun started {started()} processes, but only lns-sim train shares a run among them"
                )
            changes = _changes(known, arguments)
            if "changes" in own:
                arguments["changes"] = changes
            elif "datapath" in own:
                format = LNSFormat(changes.pop("bits", LNSFormat.bits), changes.pop("gamma", LNSFormat.gamma))
                arguments["datapath"] = _datapath(format, changes)
            return function(**arguments, output=Output(quiet, as_json))

    shown = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _SHOWN.items()
    ]
    kept = [p for p in own.values() if p.name not in ("changes", "datapath", "output")]
    run.__signature__ = inspect.Signature([*kept, *shown, *_options(known)])
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}
    return run
