"""An optimizer for some parameters, with an ordinary one for the rest in the same object."""

from __future__ import annotations

import inspect

import torch

from lns_sim.checks import check_choice, check_number
from lns_sim.optim import two_kinds
from lns_sim.optim.groups import check_effect, check_known, fill_in, number

FLOAT_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""Optimizers of float parameters, by name."""


class SplitOptimizer(torch.optim.Optimizer):
    """Parameters that :meth:`takes` names are updated by :meth:`_step_own`, the others by a torch optimizer.

    ``param_groups`` are those that were given, each with the options of both kinds; a group may hold both, and ``own``
    in it tells whether it holds any of its own.

    **Learning rates.** ``lr`` is of the own parameters, ``float_lr`` of the others at the ``lr`` that the group was
    made with (kept as ``nominal_lr``; it is ``initial_lr`` where a group gives that, too): float parameters learn by
    ``float_lr * lr / nominal_lr``. So schedulers, which know ``lr`` alone, scale both. In a group without own
    parameters ``lr`` and ``float_lr`` are the same, and either may be given. A group made with ``lr`` 0 has no factor:
    its float parameters learn by ``float_lr``.

    **Options of a group.** Those of the float optimizer, weight decay and momentum among them, act on the group's float
    parameters only; a group that has none cannot ask for them, nor one without own parameters for the others.

    Args:
        params: parameters, pairs of names and parameters, or groups.
        defaults: of the own parameters' options.
        float_optimizer: "sgd", "adam" or "adamw".
        float_lr: its learning rate.
        float_kwargs: its other arguments, e.g. ``{"momentum": 0.9}``, which is SGD's default.

    Raises:
        TypeError: an option of the wrong type, or one that the float optimizer does not know.
        ValueError: no parameters, an option out of range, one that a group does not know or that has no effect there,
            or an unknown optimizer name.
    """

    # What own parameters are, as errors call them.
    own_kind = "weights of multiplicative updates"

    def __init__(
        self,
        params,
        defaults: dict,
        float_optimizer: str = "sgd",
        float_lr: float = 0.1,
        float_kwargs: dict | None = None,
    ):
        defaults = {**defaults, "float_lr": float_lr}
        check_choice("float_optimizer", float_optimizer, FLOAT_OPTIMIZERS)
        self._check(defaults)
        if float_kwargs is None:
            float_kwargs = {"momentum": 0.9} if float_optimizer == "sgd" else {}
        if not isinstance(params, torch.Tensor):  # which torch refuses
            params = list(params)
            if not params:
                raise ValueError("params is empty")
        # It keeps no parameters: each step gives it the groups' shares.
        self._inner = FLOAT_OPTIMIZERS[float_optimizer]([{"params": []}], lr=number(float_lr), **float_kwargs)
        super().__init__(params, {**self._inner.defaults, **defaults, "step": 0, "nominal_lr": None})

    def takes(self, p: torch.Tensor) -> bool:
        """Is the parameter one of its own?"""
        raise NotImplementedError

    def _check(self, options: dict) -> None:
        """Raises TypeError or ValueError for a wrong value among a group's options."""
        check_number("lr", number(options["lr"]), 0.0)
        check_number("float_lr", number(options["float_lr"]), 0.0)

    def _step_own(self, group: dict, weights: list[torch.Tensor], index: int) -> None:
        """One update of a group's own parameters; ``index`` counts the groups that have some."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters, which may be of both kinds, with options of their own.

        Raises:
            TypeError, ValueError: as at construction; the optimizer stays as it was.
        """
        given = dict(param_group) if isinstance(param_group, dict) else {}
        check_known(given, self.defaults)
        super().add_param_group(param_group)
        try:
            self._complete(self.param_groups[-1], given)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _complete(self, group: dict, given: dict) -> None:
        """Checks a group and fills in what depends on the kinds of its parameters."""
        kinds = {self.takes(p) for p in group["params"]}
        group["own"] = True in kinds
        if kinds and given.get("own", group["own"]) != group["own"]:
            raise ValueError(f"own = {given['own']!r} of a parameter group, but its parameters say {group['own']}")
        of_floats = (self._inner.defaults.keys() | {"float_lr"}) - {"lr"}
        if kinds == {True}:
            why = f"it holds {self.own_kind} only; give it with float parameters, or in float_kwargs"
            check_effect(given, of_floats, self.defaults, why)
            group["weight_decay"] = 0.0
        if kinds == {False}:
            of_own = self.defaults.keys() - of_floats - {"lr", "step", "nominal_lr"}
            check_effect(given, of_own, self.defaults, f"it acts on {self.own_kind} only, and the group holds none")
            if "lr" not in given:
                group["lr"] = group["float_lr"]
            elif "float_lr" not in given:
                group["float_lr"] = number(group["lr"])
        self._check(group)
        kind = type(self._inner)
        options = {k: group[k] for k in inspect.signature(kind).parameters if k in self._inner.defaults}
        kind([{"params": []}], **{**options, "lr": number(group["float_lr"])})  # which checks them
        if group["nominal_lr"] is None:
            group["nominal_lr"] = number(given.get("initial_lr", group["lr"]))

    def _share(self, group: dict, floats: list[torch.Tensor]) -> dict:
        """The inner optimizer's view of a group."""
        factor = number(group["lr"]) / group["nominal_lr"] if group["nominal_lr"] else 1.0
        options = {key: group[key] for key in self._inner.defaults}
        return {**options, "params": floats, "lr": number(group["float_lr"]) * factor}

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient; returns the closure's loss, if one is given.

        Raises:
            ValueError: a learning rate is no finite number >= 0; nothing is updated.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            SplitOptimizer._check(self, group)
        shares, with_own = [], 0
        for group in self.param_groups:
            own, floats = [], []
            for p in group["params"]:
                (own if self.takes(p) else floats).append(p)
            group["step"] += 1
            if own:
                self._step_own(group, own, with_own)
                with_own += 1
            if floats:
                shares.append(self._share(group, floats))
        if shares:
            self._inner.param_groups, self._inner.state = shares, self.state
            type(self._inner).step.__wrapped__(self._inner)  # without hooks, which this object's step has run
        return loss

    def load_state_dict(self, state_dict) -> None:
        super().load_state_dict(two_kinds.joined(state_dict, self.param_groups, self.takes))

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_inner": self._inner}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        fill_in(self.param_groups, self.defaults)
