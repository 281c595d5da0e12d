#!/usr/bin/env python3
"""Draws what `gatehouse-lab eval --json` printed: loss against capacity factor, a curve a policy, a panel a file.

    pip install -r tests/bench/requirements-plot.txt
    python3 tests/bench/plot_eval.py OUT.png EVAL.jsonl... [--value loss_difference] [--other MAIN.json...]

--value names another number of the lines (kl, drop_share, gate_mass_kept, step_time, max_load). --other: for each file
the figures of models/recipe/curve.py, drawn as crosses. The background is opaque, so that it reads on dark pages too.
"""
import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (after the choice of a back end without a screen)

MARKS = ["o", "s", "^", "D", "v", "P", "*"]
COLOURS = ["#b3261e", "#8a5a00", "#1b6e3c", "#2456a6", "#6b3fa0", "#555555", "#007a7a"]
LABELS = {"loss_difference": "loss less exact routing's, nats/token", "kl": "KL from exact routing, nats/token",
          "drop_share": "share of pairs dropped", "gate_mass_kept": "gate mass kept",
          "step_time": "time of the experts (1: nothing dropped, all devices equally busy)",
          "max_load": "largest expert load over the mean"}
OTHER = {"arrival": ("arrival", 0), "random": ("random", 0), "score": ("score", 0), "score + reroute": ("score", 4),
         "device": ("device", 0)}  # policy -> that of curve.py, with its reroute


def curves_of(path, value):
    """policy -> [(factor, value)], without the factor inf."""
    curves = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if isinstance(row["factor"], (int, float)):
            curves.setdefault(row["policy"], []).append((row["factor"], row[value]))
    return {name: sorted(points) for name, points in curves.items()}


def other_points(path, policy):
    cells = json.loads(path.read_text())["cells"]
    return sorted((cell["gamma"], cell["delta"]) for cell in cells if cell["group"] == "main"
                  and (cell["policy"], cell["m"]) == OTHER.get(policy) and cell["gamma"] != "inf")


def draw(axes, path, value, other):
    for i, (name, points) in enumerate(curves_of(path, value).items()):
        axes.plot(*zip(*points), color=COLOURS[i % 7], marker=MARKS[i % 7], markersize=5, linewidth=1.6, label=name)
        if other and other_points(other, name):
            axes.plot(*zip(*other_points(other, name)), color="black", marker="x", linestyle="none", markersize=7,
                      label="torch" if i == 0 else None)
    if value in ("loss_difference", "kl"):
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_title(json.loads(path.read_text().splitlines()[0])["model"])
    axes.set_xlabel("capacity factor")
    axes.set_ylabel(LABELS.get(value, value))
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=8, loc="upper right")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("files", type=pathlib.Path, nargs="+")
    parser.add_argument("--value", default="loss_difference")
    parser.add_argument("--other", type=pathlib.Path, nargs="*", default=[])
    args = parser.parse_args()
    figure, panels = pyplot.subplots(1, len(args.files), figsize=(5.6 * len(args.files), 4.4), squeeze=False)
    figure.patch.set_facecolor("white")
    for i, path in enumerate(args.files):
        draw(panels[0][i], path, args.value, args.other[i] if i < len(args.other) else None)
    figure.tight_layout()
    figure.savefig(args.out, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
