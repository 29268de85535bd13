"""What the project's docstrings have that griffe's parser does not know."""

from __future__ import annotations

import re

import griffe


class Docstrings(griffe.Extension):
    """Names in Sphinx's way, :class:`lns_sim.Datapath`, become links where the reference has them, and code elsewhere;
    arguments that are described together, ``a, b: text``, stay together.
    """

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if not obj.docstring:
            return
        module = obj.path if obj.is_module else obj.module.path

        def link(found: re.Match) -> str:
            name = found[1]
            path = name if name.startswith("lns_sim.") else f"{module}.{name}"
            return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'

        text = re.sub(r":\w+:`([\w.]+)`", link, obj.docstring.value)
        together = re.compile(r"(?<=    )[a-z]\w*(?:, [a-z]\w*)+(?=: )")
        # As one name, of no type.
        obj.docstring.value = together.sub(lambda names: names[0].replace(" ", "\N{NO-BREAK SPACE}") + " ()", text)
