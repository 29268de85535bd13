"""Where a NaN or Inf comes from: the first layer and pass that make one of finite numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from lns_sim.nn import LNSWeight


def _finite(*values) -> bool:
    """Are all floating-point tensors within finite?"""
    for value in values:
        if isinstance(value, (tuple, list)):
            finite = _finite(*value)
        elif isinstance(value, Tensor) and value.is_floating_point():
            finite = bool((value.scale if isinstance(value, LNSWeight) else value).isfinite().all())
        else:
            continue
        if not finite:
            return False
    return True


def _tensors(value) -> list[Tensor]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [t for t in values if isinstance(t, Tensor)]


def first_nonfinite(model: nn.Module, loss: Callable[[], Tensor]) -> str | None:
    """Runs forward and backward once more and names what first makes NaN or Inf; None if nothing does.

    Args:
        model: at the state in which it happened; its gradients are lost.
        loss: runs the model and returns its loss.

    Returns:
        Words such as "the weight gradient of fc" or "the loss".
    """
    for name, p in model.named_parameters():
        if not _finite(p.detach()):
            return f"the parameter {name}"
    found: list[str] = []
    names = {m: name or "(model)" for name, m in model.named_modules()}

    def note(what: str, grad: Tensor) -> None:
        if not found and not _finite(grad):
            found.append(what)

    def forward(module, args, output):
        name = names[module]
        if not found and _finite(args) and not _finite(output):
            found.append(f"the forward pass of {name}")
        for t in _tensors(output):
            watch(t, f"the gradient of the output of {name}")
        for t in _tensors(args):  # made by this layer, if it is also some layer's output
            watch(t, f"the input gradient of {name}")

    def watch(t: Tensor, what: str) -> None:
        if not t.requires_grad:
            return
        label = getattr(t, "_lns_sim_label", None)
        if label is None:
            t._lns_sim_label = label = [what]
            t.register_hook(lambda grad: note(label[0], grad))
        label[0] = what

    hooks = [m.register_forward_hook(forward) for m in model.modules() if not any(m.children())]
    for name, module in model.named_modules():
        for p in module.parameters(recurse=False):
            if p.requires_grad:
                hooks.append(p.register_hook(partial(note, f"the weight gradient of {name or '(model)'}")))
    try:
        model.zero_grad()
        value = loss()
        if not found and not _finite(value):
            found.append("the loss")
        if not found:
            value.backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad()
    return found[0] if found else None
