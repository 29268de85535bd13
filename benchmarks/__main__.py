"""Measure everything: ``python -m benchmarks [--only WORD ...] [--json FILE] [--plot FILE] [--against FILE]``.

Prints each work beside its target and a verdict, writes them as JSON, draws the products under their limits, and tells
what changed against a file that it wrote before, such as ``benchmarks/baseline.json``.
"""

from __future__ import annotations

import argparse
import json
import os

import torch

from benchmarks import (
    elementwise,
    gpu,
    language_models,
    log_domain,
    memory,
    peers,
    products,
    roofline,
    scaling,
    steps,
    wide,
)
from benchmarks.baseline import print_changes
from benchmarks.harness import print_table
from lns_sim.environment import environment

SECTIONS = {
    "sizes": products.sizes,
    "datapaths": products.datapaths,
    "wide": wide.wide,
    "log-domain": log_domain.log_domain,
    "convolutions": products.convolutions,
    "elementwise": elementwise.elementwise,
    "steps": steps.steps,
    "scaling": scaling.scaling,
    "memory": memory.memory,
    "peers": peers.peers,
    "gpu": gpu.gpu,
    "language-models": language_models.language_models,
}
NEED_A_GPU = {"gpu", "language-models"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=[s for s in SECTIONS if s not in NEED_A_GPU],
        metavar="SECTION",
        help=f"some of: {', '.join(SECTIONS)}; all that need no GPU by default",
    )
    parser.add_argument("--json", metavar="FILE", help="write the measurements")
    parser.add_argument("--plot", metavar="FILE", help="draw the roofline picture (PNG or PDF), and as SVG beside it")
    parser.add_argument(
        "--against", metavar="FILE", help="tell what changed since --json wrote this file, on any machine"
    )
    args = parser.parse_args()
    if args.plot and not {"sizes", "convolutions"} & set(args.only):
        parser.error("--plot draws products: add 'sizes' or 'convolutions' to --only")
    if args.against and not os.path.exists(args.against):
        parser.error(f"--against: there is no {args.against}")
    rows = []
    for name in args.only:
        print(f"{name} ...", flush=True)
        rows += SECTIONS[name]()
    where = environment()
    print_table(
        rows, f"{where['cpu']}, {where['isa']}, {torch.get_num_threads()} threads, torch {where['torch']}; medians"
    )
    short = [r for r in rows if r.verdict == "short"]
    print(f"{sum(r.verdict == 'ok' for r in rows)} targets met, {len(short)} not met")
    roofs, bytes_per_second = {}, 0.0
    if args.plot:
        roofs, bytes_per_second = roofline.limits(), roofline.bandwidth()
        for path, limit in roofs.items():
            best = max((r.macs / r.seconds for r in rows if r.path == path and r.intensity), default=0.0)
            if best:
                print(
                    f"{path}: best {best / 1e9:.1f} of {limit / 1e9:.1f} G products/s, {best / limit:.0%} of its limit"
                )
        roofline.draw(rows, roofs, bytes_per_second, args.plot)
    if args.against:
        print_changes(rows, args.against)
    if args.json:
        result = {
            "environment": where,
            "limits": roofs,
            "bandwidth": bytes_per_second,
            "rows": [r.record() for r in rows],
        }
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
