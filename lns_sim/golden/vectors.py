"""Golden vectors: operands and results for a hardware design, as hex for ``$readmemh`` and JSON to interpret it.

A folder holds ``a.hex`` and ``b.hex``, one word of ``vector_size`` codes a line (lane 0 in the lowest bits, lanes past
K zero), the vectors of a dot product one after the other; ``acc.hex``, the accumulator after each dot product in two's
complement; ``scale.hex`` and ``code.hex``, a scale for each and the code that the accumulator has at it; and
``vectors.json``. If asked for, ``bins.hex``, ``y.hex`` and ``z.hex`` hold what happened in every vector. Operands with
block scales have ``a_shift.hex`` and ``b_shift.hex``, the shift of each vector's block.

The accumulators of a datapath that adds logarithms are not converted: such a folder has ``plus.hex`` and ``minus.hex``,
its correction tables, in place of scales and codes, and ``products.hex`` and ``sums.hex`` of every vector.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lns_sim import reference
from lns_sim.accumulators import AccumulatorConverter
from lns_sim.block_tensor import BlockTensor
from lns_sim.checks import check_int
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath, Counters, check_datapath, from_fields
from lns_sim.environment import provenance
from lns_sim.files import write_json
from lns_sim.format import LNSFormat
from lns_sim.functional import matmul
from lns_sim.golden import block_vectors, log_vectors
from lns_sim.golden.block_vectors import SHIFT_BITS
from lns_sim.golden.sources import Shifts, operands
from lns_sim.golden.trace import trace_dot
from lns_sim.golden.words import WordLayout, hex_words, pack, read_words, unpack
from lns_sim.log_datapath import LogDatapath
from lns_sim.tensor import LNSTensor

NAME = "vectors.json"
SCALE_BITS = 24
INTERMEDIATE_BITS = 64  # all intermediates fit 62
_KEYS = {  # of vectors.json
    *("commands", "environment", "source", "seed", "dot_products", "k", "vectors_per_dot_product", "datapath"),
    *("constants", "converter", "layout", "formats", "block", "coverage", "words", "names"),
    *("accumulators", "scales", "codes"),
}


@dataclass(frozen=True)
class VectorSet:
    """Dot products and what the datapath makes of them.

    Attributes:
        datapath: the arithmetic.
        a, b: codes, int64 arrays of shape (dot products, K).
        accumulators: int64 array of shape (dot products,).
        converter: makes codes of accumulators; None of a LogDatapath.
        scales: of each conversion, in octaves, int64 array of shape (dot products,); empty of a LogDatapath.
        codes: of ``accumulators * 2^scales``, int64 array of shape (dot products,); empty of a LogDatapath.
        source: where the codes come from.
        seed: of random codes and scales.
        coverage: how many dot products saturate, vanish, cancel, and so on; see docs/golden.md.
        names: what each dot product is for, or empty.
        layout: of words of codes, where they are not the codes themselves.
        formats: of a's and b's codes, where they are not the datapath's.
        block: elements along K that share a shift; None: no block scales.
        shifts: a's and b's, int64 arrays of shape (dot products, blocks); None without block scales.
    """

    datapath: AnyDatapath
    a: np.ndarray
    b: np.ndarray
    accumulators: np.ndarray
    converter: AccumulatorConverter | None
    scales: np.ndarray
    codes: np.ndarray
    source: str
    seed: int
    coverage: dict[str, int]
    names: list[str] = field(default_factory=list)
    layout: WordLayout | None = None
    formats: tuple[LNSFormat, LNSFormat] | None = None
    block: int | None = None
    shifts: Shifts | None = None

    @property
    def operands(self) -> Iterator[tuple[LNSTensor, LNSTensor]]:
        """Both operands of every dot product."""
        f = self.formats or (self.datapath.format,) * 2
        a, b = _tensors(self.a, self.b, f, self.block, self.shifts)
        return ((a[i], b[i]) for i in range(len(self.a)))

    def write(self, folder, intermediates: bool = False) -> dict:
        """Writes the files; returns what vectors.json says.

        Args:
            folder: made where it does not exist.
            intermediates: write bins, Y and Z of every vector, too, or products and sums. They come from the
                plain-Python reference, at some 50,000 products a second.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        d = self.datapath
        own = self.formats or (d.format, d.format)
        operand_bits = [self.layout.bits if self.layout else o.bits for o in own]
        widths = " and ".join(map(str, dict.fromkeys(operand_bits)))
        files = {
            name: [word for row in codes for word in pack(row, o, d.vector_size, self.layout)]
            for name, codes, o in zip("ab", (self.a, self.b), own)
        }
        described = {
            "a.hex, b.hex": f"a line is {d.vector_size} codes of {widths} bits, lane 0 in the lowest bits; lanes "
            "past k are 0",
            "a code": f"fields {self.layout.fields}, the exponent less {self.layout.bias}"
            if self.layout
            else "a sign bit over an exponent, exponent 0 is zero",
        }
        if self.block is not None and self.shifts is not None:
            for name, shifts in zip("ab", self.shifts):
                spread = block_vectors.of_vectors(shifts, self.block, d.vector_size, self.a.shape[1])
                files[f"{name}_shift"] = hex_words(spread.reshape(-1), SHIFT_BITS)
            described["a_shift.hex, b_shift.hex"] = (
                f"a line is the shift of a vector's block of {self.block} codes, in octaves under the operand's scale, "
                f"{SHIFT_BITS} bits"
            )
        results, of_results = self._results()
        files, described = {**files, **results}, {**described, **of_results}
        if intermediates:
            more, of_them = self._intermediates()
            files |= more
            described[", ".join(f"{name}.hex" for name in more)] = of_them
        for name, lines in files.items():
            (folder / f"{name}.hex").write_text("".join(f"{line}\n" for line in lines))
        description = {
            "source": self.source,
            "seed": self.seed,
            "dot_products": len(self.a),
            "k": self.a.shape[1],
            "vectors_per_dot_product": -(-self.a.shape[1] // d.vector_size),
            "datapath": {**dataclasses.asdict(d), **self._resolved()},
            "converter": self.converter and dataclasses.asdict(self.converter),
            "layout": self.layout and dataclasses.asdict(self.layout),
            "formats": self.formats and [dataclasses.asdict(o) for o in self.formats],
            "block": self.block,
            "coverage": self.coverage,
            "words": described,
            "names": self.names,
            "accumulators": self.accumulators.tolist(),
            "scales": self.scales.tolist(),
            "codes": self.codes.tolist(),
        }
        if isinstance(d, Datapath):
            description["constants"] = d.constants
        record = provenance(**description)
        write_json(record, folder / NAME)
        return record

    def _resolved(self) -> dict[str, int]:
        """What the datapath's None stand for."""
        d = self.datapath
        return {"acc_gamma": d.octave, "offset": d.product_offset} if isinstance(d, LogDatapath) else {"acc_lsb": d.lsb}

    def _results(self) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Files of results, and what they hold."""
        d = self.datapath
        if isinstance(d, LogDatapath) or self.converter is None:
            return log_vectors.files_of(d, self.accumulators)
        f = self.converter.format
        bits = self.layout.bits if self.layout else f.bits
        words = [self.layout.word(int(code), f) for code in self.codes] if self.layout else self.codes
        files = {
            "acc": hex_words(self.accumulators, d.acc_bits),
            "scale": hex_words(self.scales, SCALE_BITS),
            "code": hex_words(words, bits),
        }
        return files, {
            "acc.hex": f"a line is the accumulator after a dot product, {d.acc_bits} bits two's complement, in units "
            "of 2^acc_lsb",
            "scale.hex": f"a line is a scale for each accumulator, {SCALE_BITS} bits two's complement, in octaves",
            "code.hex": f"a line is the code of acc * 2^scale, {bits} bits",
        }

    def _intermediates(self) -> tuple[dict[str, list[str]], str]:
        """Files of what happened in every vector, and what they hold."""
        d = self.datapath
        traces: list[Any] = [v for a, b in self.operands for v in trace_dot(a, b, d).vectors]
        if isinstance(d, LogDatapath):
            return log_vectors.intermediates(d, traces)
        files = {"bins": [" ".join(hex_words(v.bins, INTERMEDIATE_BITS)) for v in traces]}
        files["y"], files["z"] = (hex_words([getattr(v, n) for v in traces], INTERMEDIATE_BITS) for n in "YZ")
        return (
            files,
            f"a line is of one vector: every bin, Y, and Z, words of {INTERMEDIATE_BITS} bits two's complement",
        )


def make_vectors(
    datapath: AnyDatapath,
    source: str = "random",
    count: int = 1000,
    k: int = 128,
    seed: int = 0,
    converter: AccumulatorConverter | None = None,
    scale: int | None = None,
    layout: WordLayout | None = None,
    formats: tuple[LNSFormat, LNSFormat] | None = None,
    block: int | None = None,
) -> VectorSet:
    """Operands from a source, with the accumulators that the kernels compute for them, and the codes of these.

    Warns where all dot products overflow, or none is seen by the accumulator: such vectors test little.

    Args:
        datapath: the arithmetic.
        source: "random" (uniform codes), "corner" (every case that designs get wrong), or "npz:PATH" with integer
            arrays ``a`` and ``b`` of codes, both of shape (dot products, K), for instance of a layer's operands; with
            block scales also ``a_shifts`` and ``b_shifts`` of shape (dot products, blocks), zeros for a side without.
        count: dot products of the random source.
        k: length of a dot product, of the random and the corner source.
        seed: of the random source, and of scales.
        converter: makes codes of accumulators; None: :class:`lns_sim.AccumulatorConverter` of the datapath's format.
        scale: of conversions, in octaves; None: one at which the largest accumulator fits, and with the random and
            the corner source other ones about it, from dot product to dot product.
        layout: of a design whose words of codes are others; operands are then codes that such words hold.
        formats: of a's and b's codes, which the datapath's format holds; None: the datapath's.
        block: elements along K that share a shift (spec section 8), a multiple of the datapath's ``vector_size``; the
            random source draws shifts of up to 15. None: no block scales.

    Raises:
        TypeError: datapath or formats are of another type.
        ValueError: an unknown source, arrays that are not codes of the formats, formats or blocks that the datapath
            does not take; corner cases and layouts are of operands of the datapath's format.
    """
    check_datapath(datapath)
    check_int("count", count, 1, None)
    check_int("k", k, 1, None)
    check_int("seed", seed, 0, (1 << 63) - 1)
    f = datapath.format
    exponents = layout.exponents(f) if layout else (1, f.e_max)
    log = isinstance(datapath, LogDatapath)
    if log and any(x is not None for x in (converter, scale, layout)):
        raise ValueError(
            "accumulators of a LogDatapath are not converted: converter, scale and layout are for linear ones"
        )
    if block is not None:
        check_int("block", block, 1, None)
        if log:
            raise ValueError("a LogDatapath has no shifts for blocks: block is for linear ones")
        if block % datapath.vector_size:
            raise ValueError(
                f"blocks of {block} are no multiple of the datapath's vector_size = {datapath.vector_size}"
            )
    converter = converter or AccumulatorConverter(
        f, exponents=layout and exponents, offset=layout.bias if layout else 0
    )
    if converter.format.gamma != f.gamma:
        raise ValueError(f"the converter has gamma {converter.format.gamma}, but the datapath {f.gamma}")
    if layout:
        low, high = layout.exponents(converter.format)
        if not (converter.exponents and low <= converter.exponents[0] and converter.exponents[1] <= high):
            raise ValueError(
                f"the converter's exponents must be from {low} to {high}, which words of {layout.fields} hold"
            )
    rng = np.random.default_rng(seed)
    if formats is not None:
        if list(map(type, formats)) != [LNSFormat] * 2:
            raise TypeError(f"formats must be two LNSFormats, a's and b's, got {formats!r}")
        if layout or source == "corner":
            what = "a layout of words" if layout else "the source corner"
            raise ValueError(f"{what} is for operands of the datapath's own format; take random or npz:PATH for others")
        for name, own in zip("ab", formats):
            f.check_holds(name, own)
    names, a, b, shifts = operands(datapath, source, count, k, rng, exponents, formats, block)
    if layout:  # whose zero has no sign
        a, b = (np.where(codes & f.e_max, codes, 0) for codes in (a, b))
    accumulators, counters = _accumulate(*_tensors(a, b, formats or (f, f), block, shifts), datapath)
    scales = codes = np.zeros(0, dtype=np.int64)
    if not log:
        scales = _scales(accumulators, converter, scale, None if source.startswith("npz:") else rng)
        codes = converter.convert(torch.from_numpy(accumulators), torch.from_numpy(scales)).numpy()
        codes = codes.astype(np.int64) & (1 << converter.format.bits) - 1
    recoded = (reference.recode(v, o, f) for v, o in zip((a, b), formats or (f, f)))
    cover = log_vectors.coverage if isinstance(datapath, LogDatapath) else _coverage
    coverage = cover(datapath, *recoded, accumulators, counters)
    if block is not None and shifts is not None:
        spread = block_vectors.of_vectors(sum(shifts), block, datapath.vector_size, a.shape[1])
        coverage["shifted_accumulations"] = int((spread > 0).sum())
    if coverage["saturated"] == len(a) or counters.saturations >= counters.narrowed:
        warnings.warn(
            f"every dot product overflows: {'more headroom_bits' if log else 'a larger acc_lsb'}, or smaller codes, "
            "would test more",
            stacklevel=2,
        )
    if coverage["vanished"] + coverage["zero"] == len(a):
        warnings.warn(
            f"no product is seen by the accumulator: all are zero or below its {'range' if log else 'unit'}",
            stacklevel=2,
        )
    return VectorSet(
        datapath,
        a,
        b,
        accumulators,
        None if log else converter,
        scales,
        codes,
        source,
        seed,
        coverage,
        names,
        layout,
        formats,
        block,
        shifts,
    )


def _tensors(
    a: np.ndarray, b: np.ndarray, formats: tuple[LNSFormat, LNSFormat], block: int | None, shifts: Shifts | None
) -> list[LNSTensor]:
    """Both sides' codes, with their shifts if any."""
    found = [_tensor(codes, own) for codes, own in zip((a, b), formats)]
    if block is None or shifts is None:
        return found
    return [
        BlockTensor(t.codes, t.scale, t.format, torch.from_numpy(s.astype(np.uint8)), 1, block)
        for t, s in zip(found, shifts)
    ]


def _tensor(codes: np.ndarray, f: LNSFormat) -> LNSTensor:
    stored = torch.from_numpy(codes.astype(np.uint16 if f.bits > 8 else np.uint8)).view(f.dtype)
    return LNSTensor(stored, torch.ones((), dtype=torch.float32), f)


def _accumulate(a: LNSTensor, b: LNSTensor, datapath: AnyDatapath) -> tuple[np.ndarray, Counters]:
    out, counters = matmul(a.unsqueeze(1), b.unsqueeze(2), datapath, return_accumulator=True, counters=True)
    return out.reshape(-1).numpy().astype(np.int64), counters


def _scales(
    accumulators: np.ndarray, converter: AccumulatorConverter, scale: int | None, rng: np.random.Generator | None
) -> np.ndarray:
    """One for each accumulator; without a generator all are the same."""
    if scale is not None:
        check_int("scale", scale, -(1 << SCALE_BITS - 1), (1 << SCALE_BITS - 1) - 1)
        return np.full(len(accumulators), scale)
    low, high = converter.exponents or (1, converter.format.e_max)
    g = converter.format.gamma
    fits = (high - converter.offset) // g - int(np.abs(accumulators).max()).bit_length()
    if rng is None:
        return np.full(len(accumulators), fits)
    return fits + rng.integers(-((high - low) // g), 3, len(accumulators))  # some clip, some fall below


def _coverage(d: Datapath, a: np.ndarray, b: np.ndarray, accumulators: np.ndarray, counters: Counters):
    """How many dot products and products meet which fate."""
    e_a, e_b = a & d.format.e_max, b & d.format.e_max
    some = (e_a > 0) & (e_b > 0)
    p = e_a + e_b - d.product_offset
    seen = some
    if d.product_range:
        low, high = d.product_range
        seen = seen & (p >= low) if d.product_underflow == "flush" else seen
        p = np.clip(p, low, high)
    seen = (seen & (p >= d.format.gamma * d.lane_lsb)).any(1)
    limits = (-(1 << d.acc_bits - 1), (1 << d.acc_bits - 1) - 1)
    return {
        "saturated": int(np.isin(accumulators, limits).sum()) if d.overflow == "saturate" else 0,
        "cancelled": int((seen & (accumulators == 0)).sum()),
        "vanished": int((some.any(1) & ~seen).sum()),
        "zero": int((~some.any(1)).sum()),
        "overflowed_sums": counters.saturations,
        "sums": counters.narrowed,
        "accumulations": counters.vectors,
        "vanished_products": counters.vanished,
        "zero_products": counters.zero_lanes,
        "products": counters.macs,
    }


def read_vectors(path) -> VectorSet:
    """What :meth:`VectorSet.write` wrote, from the folder or its vectors.json.

    Raises:
        FileNotFoundError: nothing was written there.
        ValueError: the files are damaged or do not belong together, or say what is not known here.
    """
    path = Path(path)
    if path.is_dir() and not (path / NAME).exists():
        raise FileNotFoundError(f"{path} is no folder that lns-sim vectors wrote: it has no {NAME}")
    path = path / NAME if path.is_dir() else path
    try:
        d = json.loads(path.read_text())
        if unknown := sorted(d.keys() - _KEYS):
            raise ValueError(f"it says {', '.join(unknown)}, which this version does not know")
        datapath, c = from_fields(d["datapath"]), d["converter"]
        converter = c and AccumulatorConverter(**{**c, "format": LNSFormat(**c["format"])})
        if (converter is None) != isinstance(datapath, LogDatapath):
            raise ValueError("a linear datapath has a converter, one that adds logarithms none")
        layout = d["layout"] and WordLayout(**d["layout"])
        n, k, per = d["dot_products"], d["k"], d["vectors_per_dot_product"]
        check_int("dot_products", n, 1, None)
        check_int("k", k, 1, None)
        check_int("seed", d["seed"], 0, None)
        if per != -(-k // datapath.vector_size):
            raise ValueError(f"{per} vectors of {datapath.vector_size} lanes do not hold k = {k} codes")
        block = d.get("block")
        if block is not None:
            check_int("block", block, 1, None)
            if isinstance(datapath, LogDatapath) or block % datapath.vector_size:
                raise ValueError(f"the datapath has no blocks of {block}")
        formats = d.get("formats") and tuple(LNSFormat(**own) for own in d["formats"])
        operands = []
        for name, own in zip("ab", formats or (datapath.format,) * 2):
            words = (path.parent / f"{name}.hex").read_text().split()
            if len(words) != n * per:
                raise ValueError(f"{name}.hex holds {len(words)} words, not {n * per}")
            rows = [unpack(words[i * per : (i + 1) * per], k, own, datapath.vector_size, layout) for i in range(n)]
            operands.append(np.array(rows))
        shifts = None
        if block is not None:
            of_vectors = (np.array(read_words(path.parent / f"{x}_shift.hex", SHIFT_BITS, False)) for x in "ab")
            a_shifts, b_shifts = (
                block_vectors.of_blocks(f"{x}_shift.hex", s.reshape(n, per), block, datapath.vector_size, k)
                for x, s in zip("ab", of_vectors)
            )
            shifts = a_shifts, b_shifts
        acc, scale = 1 << (datapath.acc_bits - 1), 1 << SCALE_BITS - 1
        results = [
            _integers(d[name], size, name, low, high)
            for name, size, low, high in (
                ("accumulators", n, -acc, acc - 1),
                ("scales", n if converter else 0, -scale, scale - 1),
                ("codes", n if converter else 0, 0, (1 << converter.format.bits) - 1 if converter else 0),
            )
        ]
        if len(d["names"]) not in (0, n):
            raise ValueError(f"{len(d['names'])} names for {n} dot products")
        accumulators, scales, codes = results
        return VectorSet(
            datapath,
            *operands,
            accumulators,
            converter,
            scales,
            codes,
            d["source"],
            d["seed"],
            d["coverage"],
            d["names"],
            layout,
            formats,
            block,
            shifts,
        )
    except OSError:
        raise
    except KeyError as error:
        raise ValueError(f"{path} is no set of vectors: it lacks {error}") from error
    except Exception as error:  # whatever a damaged file makes of itself
        raise ValueError(f"{path} is no set of vectors: {error}") from error


def _integers(values, n: int, name: str, low: int, high: int) -> np.ndarray:
    if len(values) != n:
        raise ValueError(f"{len(values)} {name} for {n} dot products")
    for value in values:
        check_int(f"one of the {name}", value, low, high)
    return np.array(values, dtype=np.int64)
