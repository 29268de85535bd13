"""A model's weights as a safetensors file that other tools can read: codes, scales, and their formats
(docs/weights.md).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from lns_sim.checks import check_choice, check_module
from lns_sim.distributed import whole
from lns_sim.nn import LNSWeight
from lns_sim.nn.state import EXTRA, read_kept
from lns_sim.version import __version__

KEY = "lns_sim"  # of the file's metadata


def _safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError("weight files need the library safetensors: pip install safetensors") from None
    return safetensors


def _digest(tensors: dict[str, torch.Tensor], record: dict) -> str:
    """The digest of everything that a file says, but for the digest itself."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _named(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Parameters and buffers by their first names, and for every other name the first one of the same tensor."""
    tensors: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(value), name) == name:
            tensors[name] = value
        else:
            shared[name] = first[id(value)]
    return tensors, shared


def _place(name: str, shared: dict[str, str], names) -> str:
    """What a name stands for among a model's tensors, or a file's."""
    if name in shared:
        return f"the same as {shared[name]}"
    return "a parameter of its own" if name in names or f"{name}.codes" in names else "missing"


def save(model: nn.Module, path: str | Path) -> None:
    """Writes all parameters and buffers; of an LNSWeight NAME its ``NAME.codes``, ``NAME.scale`` and format; and what
    quantizers keep between steps.

    Of a sharded model every rank must call it: they gather the parameters, one after another, and rank 0 writes them.

    Args:
        model: converted, wholly or in part; on any device.
        path: of the file, which is replaced.

    Raises:
        TypeError: model is no module.
        ImportError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    check_module(model)
    tensors: dict[str, torch.Tensor] = {}
    formats: dict[str, dict[str, int]] = {}
    state, shared = _named(model)
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    writes = not several or torch.distributed.get_rank() == 0
    for name, value in state.items():
        value = whole(value)
        if not writes:
            continue
        if isinstance(value, LNSWeight):
            tensors[f"{name}.codes"], tensors[f"{name}.scale"] = value.codes.cpu().contiguous(), value.scale.cpu()
            formats[name] = {"bits": value.bits, "gamma": value.gamma}
        else:
            tensors[name] = value.detach().cpu().contiguous()
    record = {"version": __version__, "formats": formats, "shared": shared}
    if writes:
        record["sha256"] = _digest(tensors, record)
        _safetensors().torch.save_file(tensors, path, metadata={KEY: json.dumps(record)})


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """A file's tensors and record. Raises ValueError if it is not as :func:`save` wrote it."""
    library = _safetensors()
    try:
        with library.safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    except library.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from None
    if metadata is None:
        raise ValueError(f"{path} was not written by lns_sim: its metadata has no {KEY!r}")
    try:
        record = json.loads(metadata)
        digest = record.pop("sha256")
        written = _digest(tensors, record)
    except (ValueError, TypeError, KeyError, AttributeError):
        digest, written = None, ""
    if digest != written:
        raise ValueError(f"{path} is damaged, or of an older lns_sim: its sha256 is not that of what it holds")
    return tensors, record


@torch.no_grad()
def load(model: nn.Module, path: str | Path) -> None:
    """Reads what :func:`save` wrote into a model of the same shape, converted alike; nothing is changed unless all
    fits.

    Args:
        model: of the same names, shapes, dtypes and formats, on any device.
        path: of the file.

    Raises:
        TypeError: model is no module.
        ImportError: safetensors is not installed.
        FileNotFoundError: no such file.
        ValueError: no such weight file, a damaged one, or names, shapes, dtypes, formats or shared parameters that
            differ; the message names them.
    """
    check_module(model)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    tensors, record = _read(path)
    state, shared = _named(model)
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, value in state.items():
        if isinstance(value, LNSWeight) != (name in record["formats"]):
            kind = "codes" if isinstance(value, LNSWeight) else "float32"
            raise ValueError(f"{name} is {kind} in the model, but not in {path}")
        if isinstance(value, LNSWeight):
            own, given = {"bits": value.bits, "gamma": value.gamma}, record["formats"][name]
            if own != given:
                raise ValueError(f"{name} has format {own} in the model, but {given} in {path}")
            copies += [(value.codes, f"{name}.codes"), (value.scale, f"{name}.scale")]
        elif not name.endswith(EXTRA):
            copies.append((value, name))
    for name in shared | record["shared"]:
        own, given = _place(name, shared, state), _place(name, record["shared"], tensors)
        if own != given:
            raise ValueError(f"{name} is {own} in the model, but {given} in {path}")
    for to, name in copies:
        check_choice("a tensor of the model", name, tensors)
        source = tensors[name]
        if (to.shape, to.dtype) != (source.shape, source.dtype):
            own, given = (f"{t.dtype} {tuple(t.shape)}" for t in (to, source))
            raise ValueError(f"{name} is {own} in the model, but {given} in {path}")
    kept = {name: tensors[name] for name in state if name.endswith(EXTRA) and name in tensors}
    for name, value in kept.items():
        try:
            read_kept(name, value)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    surplus = set(tensors) - {name for _, name in copies} - set(kept)
    if surplus:
        raise ValueError(f"{path} holds {sorted(surplus)[0]}, which the model has not")
    for to, name in copies:
        to.copy_(tensors[name])
    model.load_state_dict(kept, strict=False)
