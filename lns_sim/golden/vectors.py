"""Golden vectors: operands and accumulators for a hardware design, as hex for ``$readmemh`` and JSON to interpret it.

A folder holds ``a.hex`` and ``b.hex``, one word of ``vector_size`` codes a line (lane 0 in the lowest bits, lanes past
K zero), the vectors of a dot product one after the other; ``acc.hex``, the accumulator after each dot product in two's
complement; and ``vectors.json``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lns_sim.checks import check_int
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.functional import matmul
from lns_sim.golden.trace import DotTrace, trace_dot
from lns_sim.npz import read_npz
from lns_sim.tensor import LNSTensor
from lns_sim.version import __version__

NAME = "vectors.json"


@dataclass(frozen=True)
class VectorSet:
    """Dot products and what the datapath makes of them.

    Attributes:
        datapath: the arithmetic.
        a, b: codes, int64 arrays of shape (dot products, K).
        accumulators: int64 array of shape (dot products,).
        source: where the codes come from.
        names: what each dot product is for, or empty.
    """

    datapath: Datapath
    a: np.ndarray
    b: np.ndarray
    accumulators: np.ndarray
    source: str
    names: list[str] = field(default_factory=list)

    def write(self, folder) -> Path:
        """Writes the four files; returns the path of vectors.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        d = self.datapath
        for name, codes in (("a", self.a), ("b", self.b)):
            (folder / f"{name}.hex").write_text("".join(f"{word}\n" for row in codes for word in pack(row, d)))
        digits = -(-d.acc_bits // 4)
        mask = (1 << d.acc_bits) - 1
        (folder / "acc.hex").write_text("".join(f"{int(acc) & mask:0{digits}x}\n" for acc in self.accumulators))
        description = {
            "lns_sim": __version__,
            "source": self.source,
            "dot_products": len(self.a),
            "k": self.a.shape[1],
            "vectors_per_dot_product": -(-self.a.shape[1] // d.vector_size),
            "datapath": {**dataclasses.asdict(d), "acc_lsb": d.lsb},
            "constants": d.constants,
            "words": {
                "a.hex, b.hex": f"a line is {d.vector_size} codes of {d.format.bits} bits, lane 0 in the "
                "lowest bits; a code "
                "is a sign bit over an exponent, exponent 0 is zero; lanes past k are 0",
                "acc.hex": f"a line is the accumulator after a dot product, {d.acc_bits} bits two's "
                "complement, in units of "
                "2^acc_lsb",
            },
            "names": self.names,
            "accumulators": [int(acc) for acc in self.accumulators],
        }
        path = folder / NAME
        path.write_text(json.dumps(description, indent=1) + "\n")
        return path


def pack(codes, datapath: Datapath) -> list[str]:
    """The hex words of one dot product's codes, a word for each vector."""
    bits, size = datapath.format.bits, datapath.vector_size
    digits = -(-bits * size // 4)
    words = []
    for start in range(0, len(codes), size):
        word = sum(int(code) << bits * lane for lane, code in enumerate(codes[start : start + size]))
        words.append(f"{word:0{digits}x}")
    return words


def unpack(words, k: int, datapath: Datapath) -> list[int]:
    """The codes of :func:`pack`'s words."""
    bits, size = datapath.format.bits, datapath.vector_size
    values = [int(word, 16) for word in words]
    return [values[i // size] >> bits * (i % size) & ((1 << bits) - 1) for i in range(k)]


def make_vectors(
    datapath: Datapath, source: str = "random", count: int = 1000, k: int = 128, seed: int = 0
) -> VectorSet:
    """Operands from a source, with the accumulators that the kernels compute for them.

    Args:
        datapath: the arithmetic.
        source: "random" (uniform codes), "corner" (every case that designs get wrong), or "npz:PATH" with integer
            arrays ``a`` and ``b`` of codes, both of shape (dot products, K), for instance of a layer's operands.
        count: dot products of the random source.
        k: length of a dot product, of the random and the corner source.
        seed: of the random source.

    Raises:
        ValueError: an unknown source, or arrays that are not codes of the datapath's format.
    """
    check_int("count", count, 1, None)
    check_int("k", k, 1, None)
    check_int("seed", seed, 0, (1 << 63) - 1)
    names: list[str] = []
    if source == "random":
        rng = np.random.default_rng(seed)
        a, b = (rng.integers(0, 1 << datapath.format.bits, (count, k)) for _ in range(2))
    elif source == "corner":
        names, a, b = corner_cases(datapath, k)
    elif source.startswith("npz:"):
        a, b = _load(Path(source[4:]), datapath)
    else:
        raise ValueError(f"source must be 'random', 'corner' or 'npz:PATH', got {source!r}")
    return VectorSet(datapath, a, b, _accumulate(a, b, datapath), source, names)


def _accumulate(a: np.ndarray, b: np.ndarray, datapath: Datapath) -> np.ndarray:
    f = datapath.format
    one = torch.ones((), dtype=torch.float32)
    x, y = (
        LNSTensor(torch.from_numpy(v.astype(np.uint16 if f.bits > 8 else np.uint8)).view(f.dtype), one, f)
        for v in (a, b)
    )
    out = matmul(x.unsqueeze(1), y.unsqueeze(2), datapath, return_accumulator=True)
    return out.reshape(-1).numpy().astype(np.int64)


def _load(path: Path, datapath: Datapath) -> tuple[np.ndarray, np.ndarray]:
    a, b = read_npz(path, ("a", "b"))
    for name, codes in (("a", a), ("b", b)):
        if codes.ndim != 2 or codes.size == 0 or codes.dtype.kind not in "iu":
            raise ValueError(
                f"{name} in {path} must be integer codes of shape (dot products, K), got {codes.dtype} {codes.shape}"
            )
        if codes.min() < 0 or codes.max() >= 1 << datapath.format.bits:
            raise ValueError(f"{name} in {path} holds codes outside 0 .. {(1 << datapath.format.bits) - 1}")
    if a.shape != b.shape:
        raise ValueError(f"a and b in {path} must be of one shape, got {a.shape} and {b.shape}")
    return a.astype(np.int64), b.astype(np.int64)


def corner_cases(datapath: Datapath, k: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names, a, b): extremes, zeros of both signs, cancellation, single lanes, every remainder, the LSB's edge."""
    f, size = datapath.format, datapath.vector_size
    top, sign = f.e_max, 1 << (f.bits - 1)
    lanes = np.arange(k)
    cases: dict[str, tuple] = {
        "all zero": (0, 0),
        "negative zeros times the largest": (sign, top),
        "largest times largest: to the upper limit": (top, top),
        "largest times minus largest: to the lower limit": (top, sign | top),
        "minus times minus": (sign | top, sign | top),
        "smallest times smallest": (1, 1),
        "signs in turn: cancels": (top, np.where(lanes % 2, sign | top, top)),
        "up in even vectors, down in odd ones": (top, np.where(lanes // size % 2, sign | top, top)),
        "up to the end, then one down": (top, np.where(lanes == k - 1, sign | top, top)),
        "exponents ascending": (lanes % (top + 1), lanes % (top + 1)),
        "one largest, the rest smallest": (np.where(lanes == 0, top, 1), np.where(lanes == 0, top, 1)),
        "minus one unit of Y: truncation rounds down": (_only(lanes, 0, sign | _half(f, datapath)), top // 2 + 1),
    }
    for lane in sorted({0, 1, size // 2, size - 1, size, k - 1} & set(range(k))):
        cases[f"lane {lane} only"] = (_only(lanes, lane, top), top)
    for r in range(f.gamma):
        for p in {max(2, r), _largest(top, f.gamma, r)}:
            if p % f.gamma == r and 2 <= p <= 2 * top:
                cases[f"product {p}, remainder {r}"] = (_only(lanes, 0, p - p // 2), p // 2)
    edges = {"vanishing": f.gamma * datapath.lsb}  # products below vanish
    if datapath.product_range:
        edges |= dict(zip(("the product's lower limit", "the product's upper limit"), datapath.product_range))
    for name, edge in edges.items():
        for p in range(max(2, edge - 2), min(2 * top, edge + 2) + 1):
            cases[f"product {p} at the edge of {name}"] = (p - p // 2, p // 2)
    if datapath.bin_bits is not None:
        cases["up in one bin, down in the next"] = (top, np.where(lanes % 2, sign | (top - 1), top))
    shape = (k,)
    a, b = (np.stack([np.broadcast_to(case[i], shape) for case in cases.values()]).astype(np.int64) for i in range(2))
    return list(cases), a, b


def _only(lanes: np.ndarray, lane: int, code: int) -> np.ndarray:
    return np.where(lanes == lane, code, 0)


def _half(format: LNSFormat, datapath: Datapath) -> int:
    """An exponent whose product with the middle one is near the accumulator's unit."""
    return int(np.clip(format.gamma * datapath.lsb - (format.e_max // 2 + 1), 1, format.e_max))


def _largest(top: int, gamma: int, remainder: int) -> int:
    """The largest product of that remainder."""
    return 2 * top - (2 * top - remainder) % gamma


def read_vectors(path) -> VectorSet:
    """What :meth:`VectorSet.write` wrote, from the folder or its vectors.json.

    Raises:
        ValueError: the files are damaged or do not belong together.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        d = json.loads(path.read_text())
        fields = d["datapath"]
        datapath = Datapath(**{**fields, "format": LNSFormat(**fields["format"])})
        n, k, per = d["dot_products"], d["k"], d["vectors_per_dot_product"]
        check_int("dot_products", n, 1, None)
        check_int("k", k, 1, None)
        if per != -(-k // datapath.vector_size):
            raise ValueError(f"{per} vectors of {datapath.vector_size} lanes do not hold k = {k} codes")
        operands = []
        for name in ("a", "b"):
            words = (path.parent / f"{name}.hex").read_text().split()
            if len(words) != n * per:
                raise ValueError(f"{name}.hex holds {len(words)} words, not {n * per}")
            operands.append(np.array([unpack(words[i * per : (i + 1) * per], k, datapath) for i in range(n)]))
        accumulators, names, limit = d["accumulators"], d["names"], 1 << (datapath.acc_bits - 1)
        if len(accumulators) != n or len(names) not in (0, n):
            raise ValueError(f"{len(accumulators)} accumulators and {len(names)} names for {n} dot products")
        for value in accumulators:
            check_int("an accumulator", value, -limit, limit - 1)
        return VectorSet(datapath, *operands, np.array(accumulators, dtype=np.int64), d["source"], names)
    except OSError:
        raise
    except KeyError as error:
        raise ValueError(f"{path} is no set of vectors: it lacks {error}") from error
    except Exception as error:  # whatever a damaged file makes of itself
        raise ValueError(f"{path} is no set of vectors: {error}") from error


@dataclass(frozen=True)
class Mismatch:
    """The first dot product whose result is not the golden one."""

    index: int
    name: str
    got: int
    expected: int
    trace: DotTrace

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        return f"dot product {self.index}{name}: got {self.got}, expected {self.expected}\n{self.trace}"


def read_results(path, acc_bits: int) -> list[int]:
    """Signed accumulators from a hex file as ``$writememh`` writes it: words, ``//`` comments and ``@`` addresses.

    Raises:
        ValueError: a word that is no hex number (x and z mean that the design left it undefined), or too wide.
    """
    results = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        for word in line.split("//")[0].split():
            if word.startswith("@"):
                continue
            try:
                value = int(word.replace("_", ""), 16)
            except ValueError:
                raise ValueError(f"line {number} of {path} holds {word!r}, which is no hex number") from None
            extended = -(-acc_bits // 4) * 4  # a word may be sign-extended to whole digits
            signed = (value & ((1 << acc_bits) - 1)) - (value >> (acc_bits - 1) & 1) * (1 << acc_bits)
            if value != signed & ((1 << acc_bits) - 1) and value != signed & ((1 << extended) - 1):
                raise ValueError(f"line {number} of {path} holds {word!r}, which does not fit {acc_bits} bits")
            results.append(signed)
    return results


def check_results(vectors: VectorSet, path) -> Mismatch | None:
    """Compares a hex file of accumulators with the golden ones; None if all are equal.

    Raises:
        ValueError: the file is no list of accumulators, or of another length.
    """
    results = read_results(path, vectors.datapath.acc_bits)
    if len(results) != len(vectors.accumulators):
        raise ValueError(f"{path} holds {len(results)} results for {len(vectors.accumulators)} dot products")
    for i, (got, expected) in enumerate(zip(results, vectors.accumulators)):
        if got != expected:
            trace = trace_dot(vectors.a[i], vectors.b[i], vectors.datapath)
            return Mismatch(i, vectors.names[i] if vectors.names else "", got, int(expected), trace)
    return None
