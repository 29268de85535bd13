"""Modules whose every method runs in the module's own simulation: their classes, and how those are pickled."""

from __future__ import annotations

import copyreg
import functools
import inspect
from types import FunctionType

import torch
from torch import nn
from torch.fx import _symbolic_trace

from lns_sim.nn.scope import ModuleSimulation, Scope, enter, innermost, leave

_ATTRIBUTE = "_lns_sim_scope"


def scope_of(module: nn.Module) -> Scope | None:
    """The scope that :func:`attach` gave a module."""
    return module.__dict__.get(_ATTRIBUTE)


def attach(module: nn.Module, scope: Scope) -> None:
    """Runs every method of the module in a scope, in place: its class becomes one of the same name beneath it."""
    module.__dict__[_ATTRIBUTE] = scope
    module.__class__ = _simulated(type(module))


def detach(module: nn.Module) -> None:
    """Undoes :func:`attach`, where it was done."""
    if module.__dict__.pop(_ATTRIBUTE, None) is not None:
        module.__class__ = type(module)._lns_sim_base


@functools.cache
def _simulated(cls: type[nn.Module]) -> type[nn.Module]:
    methods = {name: _within_scope(method) for name, method in _own_methods(cls).items()}
    about = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**about, **methods, "_lns_sim_base": cls, "__reduce_ex__": _reduce})


def _own_methods(cls: type[nn.Module]) -> dict[str, FunctionType]:
    """What may multiply: of torch's classes their forward, of others all methods but those that nn.Module has, too."""
    found: dict[str, FunctionType] = {}
    for base in reversed(cls.__mro__):
        torchs = base.__module__.partition(".")[0] == "torch"
        for name, value in vars(base).items():
            known = torchs or hasattr(nn.Module, name) or name.startswith("__")
            if isinstance(value, FunctionType) and issubclass(base, nn.Module) and (name == "forward" or not known):
                found[name] = value
    return found


def _within_scope(method: FunctionType) -> FunctionType:
    if inspect.isgeneratorfunction(method):  # whose body runs when it is asked for values

        @functools.wraps(method)
        def run(self, *args, **kwargs):
            values, step = method(self, *args, **kwargs), _within_scope(lambda self, values: next(values))
            while True:
                try:
                    value = step(self, values)
                except StopIteration as stop:
                    return stop.value
                yield value

    else:

        @functools.wraps(method)
        def run(self, *args, **kwargs):
            scope = self.__dict__.get(_ATTRIBUTE)
            if scope is None:  # another instance of the class
                return method(self, *args, **kwargs)
            current = innermost()
            if current is not None and getattr(current, "scope", None) is scope:
                return method(self, *args, **kwargs)
            _refuse_tracing(self, args, kwargs)
            simulation = ModuleSimulation(scope, self)
            outer = enter(simulation)
            try:
                return method(self, *args, **kwargs)
            finally:
                leave(simulation, outer)

    return run


def _refuse_tracing(module: nn.Module, args, kwargs) -> None:
    """A copy that torch.fx writes has the module's products, but not its simulation.

    Raises:
        TypeError: an argument is a proxy of torch.fx.
    """
    if _symbolic_trace._is_fx_tracing_flag and any(isinstance(x, torch.fx.Proxy) for x in (*args, *kwargs.values())):
        raise TypeError(
            f"torch.fx cannot trace a converted {type(module).__name__}: its copy would multiply in float32; trace the "
            "model first, and convert what torch.fx made"
        )


def _reduce(module: nn.Module, protocol):
    """Pickled and copied as of the class that it had, and made one of these again."""
    make, args, *rest = super(type(module), module).__reduce_ex__(protocol)
    if make is copyreg.__newobj__ and args[0] is type(module):
        make, args = _new, (type(module)._lns_sim_base, *args[1:])
    return make, args, *rest


def _new(cls: type[nn.Module], *args) -> nn.Module:
    simulated = _simulated(cls)
    return simulated.__new__(simulated, *args)
