"""An optimizer for some parameters, with an ordinary one for the rest in the same object."""

from __future__ import annotations

import torch

from lns_sim.checks import check_choice, check_number

FLOAT_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class SplitOptimizer(torch.optim.Optimizer):
    """Parameters that :meth:`takes` names are updated by :meth:`_step_own`, the others by a torch optimizer.

    Both kinds are groups of this one object, marked by ``own``: schedulers and ``state_dict`` see them alike.

    Args:
        params: parameters or groups; a group holds parameters of both kinds freely.
        defaults: of the own groups.
        float_optimizer: "sgd", "adam" or "adamw".
        float_lr: its learning rate.
        float_kwargs: its other arguments, e.g. ``{"momentum": 0.9}``, which is SGD's default.

    Raises:
        ValueError: no parameters, a learning rate that is none, or an unknown optimizer name.
    """

    def __init__(
        self,
        params,
        defaults: dict,
        float_optimizer: str = "sgd",
        float_lr: float = 0.1,
        float_kwargs: dict | None = None,
    ):
        check_number("float_lr", float_lr, 0.0)
        check_choice("float_optimizer", float_optimizer, FLOAT_OPTIMIZERS)
        if float_kwargs is None:
            float_kwargs = {"momentum": 0.9} if float_optimizer == "sgd" else {}
        own, floats = [], []
        for group in [p if isinstance(p, dict) else {"params": [p]} for p in params]:
            options = {k: v for k, v in group.items() if k != "params"}
            members = [group["params"]] if isinstance(group["params"], torch.Tensor) else list(group["params"])
            # Ungrouped parameters share one group of each kind.
            for kind, wanted in ((own, True), (floats, False)):
                chosen = [p for p in members if self.takes(p) == wanted]
                if not chosen:
                    continue
                if not options and kind and kind[-1][0] == {}:
                    kind[-1][1].extend(chosen)
                else:
                    kind.append((options, chosen))
        if not own and not floats:
            raise ValueError("params is empty")
        groups = [{"params": ps, "own": True, **options} for options, ps in own]
        self._inner = None
        if floats:
            inner_groups = [{"params": ps, **options} for options, ps in floats]
            self._inner = FLOAT_OPTIMIZERS[float_optimizer](inner_groups, lr=float_lr, **float_kwargs)
            groups += [{**group, "own": False} for group in self._inner.param_groups]
        super().__init__(groups, {**defaults, "own": True})
        self._link()

    def takes(self, p: torch.Tensor) -> bool:
        """Is the parameter one of its own?"""
        raise NotImplementedError

    def _step_own(self, group: dict, index: int) -> None:
        """One update of an own group."""
        raise NotImplementedError

    def _link(self) -> None:
        """Lets the inner optimizer work on this object's own groups and state."""
        if self._inner is not None:
            self._inner.param_groups = [g for g in self.param_groups if not g["own"]]
            self._inner.state = self.state

    def load_state_dict(self, state_dict) -> None:
        super().load_state_dict(state_dict)
        self._link()

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            if group["own"]:
                self._step_own(group, index)
        if self._inner is not None:
            self._inner.step()
        return loss
