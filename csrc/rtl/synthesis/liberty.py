"""The language of Liberty files: groups and attributes, units, functions of cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Group:
    """``name (arguments) { attributes, groups }`` of a Liberty file."""

    name: str
    arguments: list[str]
    attributes: dict[str, list[str]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def all(self, name: str) -> list[Group]:
        """Groups of a name within this one."""
        return [group for group in self.groups if group.name == name]

    def get(self, name: str, default: str | None = None) -> str:
        """An attribute's value; ValueError if it is missing and has no default."""
        if name in self.attributes:
            return self.attributes[name][0]
        if default is None:
            raise ValueError(f"Liberty: {self.name} ({', '.join(self.arguments)}) has no {name}")
        return default


_TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|\\\s*\n|\s+|("[^"]*"|[^\s(){}:;,"]+|[(){}:;,])', re.S)


def parse(text: str) -> Group:
    """The library of a Liberty file's text; ValueError where it is none."""
    tokens = [m[1].strip('"') if m[1] not in "(){}:;," else m[1] for m in _TOKEN.finditer(text) if m[1]]
    tokens.append("")  # the end
    at = 0

    def take(expected: str | None = None) -> str:
        nonlocal at
        if (expected is not None and tokens[at] != expected) or tokens[at] == "":
            raise ValueError(f"Liberty: expected {expected or 'more'}, found {tokens[at] or 'the end of the file'}")
        at += 1
        return tokens[at - 1]

    def statement(parent: Group) -> None:
        name = take()
        if tokens[at] == ":":
            take()
            value = []
            while tokens[at] not in (";", "}", ""):  # expressions come in several words
                value.append(take())
            parent.attributes[name] = [" ".join(value)]
        else:
            take("(")
            arguments = []
            while tokens[at] != ")":
                if (token := take()) != ",":
                    arguments.append(token)
            take(")")
            if tokens[at] == "{":
                take()
                group = Group(name, arguments)
                while tokens[at] != "}":
                    statement(group)
                take("}")
                parent.groups.append(group)
            else:
                parent.attributes[name] = arguments
        if tokens[at] == ";":
            take()

    top = Group("", [])
    statement(top)
    if not top.all("library"):
        raise ValueError("Liberty: the file holds no library")
    return top.all("library")[0]


def multiple(text: str, unit: str, base: float) -> float:
    """A unit such as "10ps" or "1nW" in multiples of a base; ValueError where it is none."""
    match = re.fullmatch(rf"([\d.eE+-]+)\s*([munpf]?){unit}", text.strip())
    if match is None:
        raise ValueError(f"Liberty: {text!r} is no unit of {unit}")
    return float(match[1]) * {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}[match[2]] / base


def boolean(expression: str, inputs: tuple[str, ...]) -> Callable[..., np.ndarray]:
    """A Liberty function as a function of arrays of bits: ``!`` or ``'`` not, ``*``, ``&`` or a space and, ``+`` or
    ``|`` or, ``^`` exclusive or."""
    tokens = [*re.findall(r"[A-Za-z_]\w*|[01]|[()!'*&+|^]", expression), ""]
    at = 0

    def operators(level: int) -> str:
        nonlocal at
        if level == 3:
            return unary()
        left = operators(level + 1)
        while True:
            token = tokens[at]
            if token and token in (("+", "|"), ("^",), ("*", "&"))[level]:
                at += 1
            elif not (level == 2 and (token in ("(", "!") or re.match(r"\w", token))):
                return left
            left = f"({left} {'|^&'[level]} {operators(level + 1)})"

    def unary() -> str:
        nonlocal at
        token, at = tokens[at], at + 1
        if token == "!":
            found = f"(~{unary()})"
        elif token == "(":
            found, at = operators(0), at + 1
        elif token in inputs:
            found = token
        else:
            raise ValueError(f"Liberty: the function {expression!r} is not understood")
        while tokens[at] == "'":
            found, at = f"(~{found})", at + 1
        return found

    code = operators(0)
    if tokens[at]:
        raise ValueError(f"Liberty: the function {expression!r} is not understood")
    return eval(f"lambda {', '.join(inputs)}: {code}")  # of names and operators alone
