#!/usr/bin/env python3
"""Draws one line of `gatehouse-lab simulate --json`: how much each layer's experts computed, as a heat map.

    pip install -r tests/bench/requirements-plot.txt
    gatehouse-lab simulate TRACE --policy ... --json | python3 tests/bench/plot_loads.py OUT.png [--line N]
"""
import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (after the choice of a back end without a screen)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--line", type=int, default=0, help="which of the lines, from 0")
    args = parser.parse_args()
    row = json.loads(sys.stdin.read().splitlines()[args.line])
    loads = [[load * len(layer) / max(sum(layer), 1) for load in layer] for layer in row["loads"]]
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.3 * len(loads)))
    figure.patch.set_facecolor("white")
    image = axes.imshow(loads, aspect="auto", cmap="viridis", vmin=0)
    figure.colorbar(image, label="load over the layer's mean")
    axes.set_title(f"{row['policy']}, factor {row['factor']}: {row['dropped']} of {row['assignments']} pairs dropped, "
                   f"time {row['step_time']:.3f}")
    axes.set_xlabel("expert")
    axes.set_ylabel("MoE layer")
    figure.tight_layout()
    figure.savefig(args.out, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
