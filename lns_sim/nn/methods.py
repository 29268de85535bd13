"""Modules whose every method runs in the module's own simulation: their classes, and how those are pickled."""

from __future__ import annotations

import copyreg
import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from types import FunctionType

import torch
from torch import nn
from torch.fx import _symbolic_trace
from torch.fx.experimental import proxy_tensor
from torch.nn.utils import parametrize

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
    if cls.__module__ == parametrize.__name__:  # made for one module; to undo it torch goes back to the class above
        own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        return type(cls.__name__, (_simulated(cls.__bases__[0]),), {**own, "_lns_sim_base": cls})
    methods = {name: _wrapped(method) for name, method in _own_methods(cls).items()}
    about = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    try:
        return type(cls.__name__, (cls,), {**about, **methods, "_lns_sim_base": cls, **_OF_CONVERTED})
    except Exception as error:
        raise TypeError(
            f"convert runs a module's methods in a class beneath its own, and {cls.__name__} takes none: {error}"
        ) from error


def _extra_repr(module: nn.Module) -> str:
    """What print(model) says of it."""
    scope = scope_of(module)
    parts = [type(module)._lns_sim_base.extra_repr(module)]
    if scope is not None:
        parts.append("float32" if scope.recipe is None else f"simulated: {scope.recipe.name}")
    return ", ".join(filter(None, parts))


def _own_methods(cls: type) -> dict[str, Callable | property | functools.cached_property]:
    """What may multiply, as attributes are found.

    Of torch's classes it is their forward, of others also all functions and properties that nn.Module does not have.
    """
    found = {}
    for name in dict.fromkeys(name for base in cls.__mro__ for name in vars(base)):
        base = next(base for base in cls.__mro__ if name in vars(base))
        torchs = base is object or base.__module__.partition(".")[0] == "torch"
        known = torchs or hasattr(nn.Module, name) or name.startswith("__")
        wanted = (name == "forward" and base is not nn.Module) or (name == "__call__" and not torchs) or not known
        if wanted and isinstance(vars(base)[name], (FunctionType, property, functools.cached_property)):
            found[name] = vars(base)[name]
    return found


def _wrapped(method):
    """The same, run in the module's scope."""
    if isinstance(method, property):
        return property(method.fget and _within_scope(method.fget), method.fset, method.fdel, method.__doc__)
    if isinstance(method, functools.cached_property):
        again = functools.cached_property(_within_scope(method.func))
        again.__set_name__(None, method.attrname)
        return again
    if inspect.isgeneratorfunction(method):
        return _generator_within_scope(method)
    return _coroutine_within_scope(method) if inspect.iscoroutinefunction(method) else _within_scope(method)


def _within_scope(method: Callable) -> Callable:
    @functools.wraps(method)
    def run(self, *args, **kwargs):
        scope = scope_of(self)
        if scope is None:  # another instance of the class
            return method(self, *args, **kwargs)
        current = innermost()
        if current is not None and getattr(current, "scope", None) is scope:
            return method(self, *args, **kwargs)
        _refuse_tracing(self)
        simulation = ModuleSimulation(scope, self)
        outer = enter(simulation)
        try:
            return method(self, *args, **kwargs)
        finally:
            leave(simulation, outer)

    return run


def _generator_within_scope(method: Callable) -> Callable:
    @functools.wraps(method)
    def run(self, *args, **kwargs):
        _refuse_tracing(self)
        return (yield from _step_by_step(self, method(self, *args, **kwargs)))

    return run


def _coroutine_within_scope(method: Callable) -> Callable:
    @functools.wraps(method)
    async def run(self, *args, **kwargs):
        _refuse_tracing(self)
        return await _awaited(_step_by_step(self, method(self, *args, **kwargs)))

    return run


@types.coroutine
def _awaited(steps: Generator) -> Generator:
    return (yield from steps)


def _step_by_step(module: nn.Module, body: Generator | Coroutine) -> Generator:
    """The body of a generator or coroutine goes on when it is asked to, in one simulation from first to last."""
    scope = scope_of(module)
    simulation = None if scope is None else ModuleSimulation(scope, module)
    go_on = functools.partial(body.send, None)
    while True:
        outer = simulation and enter(simulation)
        try:
            value = go_on()
        except StopIteration as stop:
            return stop.value
        finally:
            if simulation:
                leave(simulation, outer)
        try:
            go_on = functools.partial(body.send, (yield value))
        except GeneratorExit:
            body.close()
            raise
        except BaseException as error:
            go_on = functools.partial(body.throw, error)


def _refuse_tracing(module: nn.Module) -> None:
    """A copy that a tracer writes has the module's products, but not its simulation.

    Raises:
        TypeError: torch.fx traces symbolically, or torch.export traces strictly.
    """
    # Proxies among arguments do not tell: a forward with *args is called with one in the place of all of them.
    if _symbolic_trace._is_fx_tracing_flag and proxy_tensor.get_proxy_mode() is None:
        raise TypeError(
            f"torch.fx cannot trace a converted {type(module).__name__}: its copy would multiply in float32; trace the "
            "model first, and convert what torch.fx made"
        )
    # is_exporting() is true of all that the compiler traces in torch 2.10 and 2.11.
    if torch.compiler._is_exporting_flag and torch.compiler.is_dynamo_compiling():
        raise TypeError(
            f"torch.export cannot export a converted {type(module).__name__} strictly: its copy would multiply in "
            "float32; use strict=False"
        )


def _reduce(module: nn.Module, protocol):
    """Pickled and copied as of the class that it had, and made one of these again."""
    make, args, *rest = type(module)._lns_sim_base.__reduce_ex__(module, protocol)
    if make is copyreg.__newobj__:
        args = (type(module)._lns_sim_base, *args[1:])
    return _made_again, (make, args), *rest


def _made_again(make: Callable, args: tuple) -> nn.Module:
    module = make(*args)
    if not hasattr(type(module), "_lns_sim_base"):
        module.__class__ = _simulated(type(module))
    return module


def _refuse_script(module: nn.Module):
    """torch.jit.script asks each module what it is to compile.

    Raises:
        TypeError: always; it would compile the source of what torch computes.
    """
    raise TypeError(
        f"torch.jit.script cannot compile a converted {type(module).__name__}; use torch.compile, torch.jit.trace or "
        "torch.export(..., strict=False)"
    )


_OF_CONVERTED = {"__reduce_ex__": _reduce, "extra_repr": _extra_repr, "__prepare_scriptable__": _refuse_script}
