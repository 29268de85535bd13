"""Which of a model's modules are running."""

from __future__ import annotations

from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@contextmanager
def running_layers(model: nn.Module):
    """``with running_layers(model) as running: ...``: the names of the modules whose forward is under way, the inmost
    last.
    """
    names = {id(module): name for name, module in model.named_modules()}
    running: list[str] = []

    def leave(*_) -> None:  # what a hook returns would take the output's place
        running.pop()

    hooks = [
        register_module_forward_pre_hook(lambda m, _: running.append(names.get(id(m), type(m).__name__))),
        register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
