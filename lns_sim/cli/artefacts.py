"""What files that a command writes say of themselves: the command, the technology and the versions."""

from __future__ import annotations

import shlex

import click
from click.core import ParameterSource

from lns_sim.environment import environment

COMMANDLINE = ParameterSource.COMMANDLINE


def _given() -> list[tuple[click.Parameter, object]]:
    context = click.get_current_context()
    chosen = [p for p in context.command.params if context.get_parameter_source(p.name or "") is COMMANDLINE]
    return [(p, context.params[p.name]) for p in chosen]


def options_given() -> list[str]:
    """The options of the running command that its user typed."""
    return [p.opts[-1] for p, _ in _given() if p.param_type_name == "option"]


def command_line() -> str:
    """The running command as its user could have typed it."""
    words = ["lns-sim", click.get_current_context().info_name or ""]
    for option, value in _given():
        values = [str(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
        if option.param_type_name == "argument":
            words += values
        elif value is True:
            words.append(option.opts[-1])
        else:
            words += [word for v in values for word in (option.opts[-1], v)]
    return shlex.join(words)


def origin(technology: dict[str, object]) -> dict[str, object]:
    """For a JSON file."""
    return {"command": command_line(), "technology": technology, "versions": environment()}


def caption(technology: dict[str, object]) -> str:
    """For a picture, one line."""
    return f"{command_line()}   technology {technology['name']}, lns_sim {environment()['lns_sim']}"
