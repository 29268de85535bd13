"""The commands and their options."""

from __future__ import annotations

import typer

from lns_sim.cli.bench import bench
from lns_sim.cli.compare import compare
from lns_sim.cli.compare_recipes import compare_recipes
from lns_sim.cli.cycles import cycles
from lns_sim.cli.energy import energy
from lns_sim.cli.info import info
from lns_sim.cli.sweep import sweep
from lns_sim.cli.train import train
from lns_sim.cli.vectors import check_vectors, vectors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Bit-exact simulation of logarithmic-number-system training hardware.\n\n"
    "Start with 'lns-sim train': it trains a small network in float32, by LNS-Madam with every product on the "
    "simulated datapath, and by the same codes with float32 products, and compares the three.",
)
app.command()(train)
app.command()(compare)
app.command()(compare_recipes)
app.command()(sweep)
app.command()(energy)
app.command()(cycles)
app.command()(bench)
app.command()(info)
app.command()(vectors)
app.command()(check_vectors)
