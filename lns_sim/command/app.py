"""The list of commands, and how one is found."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from . import missing

# What the list says of a command, and what it needs beside typer and rich. A command is the function of its name in
# lns_sim.cli.
COMMANDS = {
    "train": ("Train a classifier or a language model by several recipes and compare them.", ("matplotlib",)),
    "compare": (
        "Show what quantization and the datapath do to one batch, layer by layer and pass by pass.",
        ("matplotlib", "jinja2"),
    ),
    "compare-recipes": (
        "Train a model by LNS-Madam and the systems it is compared with, each tuned alike.",
        ("matplotlib",),
    ),
    "paper": ("Repeat the tables and figures of the papers, ours beside the published numbers.", ("matplotlib",)),
    "sweep": ("Train a model on many datapaths or formats: accuracy against cost.", ("matplotlib", "optuna")),
    "energy": ("Estimate the energy of a training iteration, beside other formats.", ("matplotlib",)),
    "cycles": ("Estimate cycles, time and memory traffic of a training iteration on an array.", ("matplotlib",)),
    "bench": ("Time the kernels against torch float32 and fake quantization in the same run.", ()),
    "info": ("Show versions, the instruction set in use, threads and how the extension was built.", ()),
    "rtl": ("Write the processing element in SystemVerilog, its test benches and a file list.", ()),
    "vectors": ("Write operands and accumulators for a hardware design.", ()),
    "check-vectors": ("Compare a design's accumulators with the golden ones.", ()),
}
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """Lists commands by their names and lines; the one that is to run is imported."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.commands = {name: click.Command(name, help=line) for name, (line, _) in COMMANDS.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they stand, not by the alphabet

    def resolve_command(self, ctx: click.Context, args: list[str]):
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _load(name), rest


def _load(name: str) -> click.Command:
    """The command itself."""
    if lacking := missing(*COMMANDS[name][1]):
        sys.exit(f"lns-sim: {name} needs {' and '.join(lacking)}: pip install {' '.join(lacking)}")
    module, function = "vectors" if name == "check-vectors" else name.replace("-", "_"), name.replace("-", "_")
    single = typer.Typer(pretty_exceptions_enable=False, add_completion=False, context_settings=_SETTINGS)
    single.command(name)(getattr(import_module(f"lns_sim.cli.{module}"), function))
    return typer.main.get_command(single)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            found = version_of("lns-sim")
        except PackageNotFoundError:  # run from its sources
            from lns_sim.version import __version__ as found
        typer.echo(f"lns_sim {found}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
    suggest_commands=False,  # click does
)


@app.callback()
def lns_sim(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Bit-exact simulation of logarithmic-number-system training hardware.

    Start with 'lns-sim train': it trains a small network in float32, by LNS-Madam with every product on the
    simulated datapath, and by the same codes with float32 products, and compares the three.
    """
