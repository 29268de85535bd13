"""What commands share: the options of formats and datapaths and of what is shown, and errors as one sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from lns_sim.cli.console import Output
from lns_sim.cli.errors import user_errors
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.recipes import Recipe

PANEL = "Formats and datapath"

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
                kind | None, typer.Option(flag(name), help=text, show_default=str(default), rich_help_panel=PANEL)
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
    for name in found.keys() & _SEPARATORS.keys():
        found[name] = integers_of(name, found[name], _SEPARATORS[name])
    return found


def command(function: Callable) -> Callable:
    """A command of a function.

    Of its parameters, ``changes`` becomes the options of formats and datapaths and is those that were given, by name;
    ``datapath`` becomes the same options and is the Datapath that they make; ``output`` becomes --quiet, --json and
    --debug and is the :class:`lns_sim.cli.console.Output`.
    """
    own = inspect.signature(function, eval_str=True).parameters
    known: dict[str, Any] = {}
    if "changes" in own:
        known = {**FORMATS, **DATAPATH}
    elif "datapath" in own:
        known = {**{name: FORMATS[name] for name in ("bits", "gamma")}, **DATAPATH}

    @functools.wraps(function)
    def run(**arguments):
        quiet, as_json, debug = (arguments.pop(name, False) for name in _SHOWN)
        with user_errors(debug):
            changes = _changes(known, arguments)
            if "changes" in own:
                arguments["changes"] = changes
            elif "datapath" in own:
                format = LNSFormat(changes.pop("bits", LNSFormat.bits), changes.pop("gamma", LNSFormat.gamma))
                arguments["datapath"] = Datapath(format, **changes)
            return function(**arguments, output=Output(quiet, as_json))

    shown = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _SHOWN.items()
    ]
    kept = [p for p in own.values() if p.name not in ("changes", "datapath", "output")]
    run.__signature__ = inspect.Signature([*kept, *shown, *_options(known)])
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}
    return run
