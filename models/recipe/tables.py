#!/usr/bin/env python3
"""Markdown tables from curve.py output. usage: tables.py CURVE.json [MORE.json ...]"""

import json, sys

d = json.load(open(sys.argv[1]))
C = d["cells"]
for extra in sys.argv[2:]:
    C += json.load(open(extra))["cells"]


def find(**kw):
    for c in C:
        if all(c.get(k) == v for k, v in kw.items()):
            return c


G = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
f = lambda c: "-" if c is None else f"{c['delta']:+.4f} / {100 * c['drop']:.1f} % / {c['max_nbar']:.2f}"
b = d["baseline"]
print(
    f"Unbounded: {b['loss']:.4f} nats/token, {b['bpb']:.4f} bits/byte, {d['tokens']} tokens in {d['batches']} batches of 4096.\n"
)
print(
    "| layer | "
    + " | ".join(str(i) for i in range(len(b["layer_max_mean"])))
    + " |\n|---|"
    + "---|" * len(b["layer_max_mean"])
)
for name, key in (
    ("max/mean load, mean of batches", "layer_max_mean"),
    ("worst batch", "layer_max_mean_worst"),
    ("min/mean load", "layer_min_mean"),
    ("max/mean over 4 devices", "layer_dev_max_mean"),
):
    print(f"| {name} | " + " | ".join(f"{v:.2f}" for v in b[key]) + " |")
pol = (("arrival", 0), ("random", 0), ("score", 0), ("score", 4), ("device", 0))
for group, title in (
    ("main", "weights of survivors left as they are"),
    ("renorm", "survivors renormalised, g' = g min(1/S, 2)"),
):
    print(f"\nLoss minus unbounded loss (nats/token) / dropped share / max load over Tk/n; {title}.\n")
    print("| gamma | arrival | random | score | score + reroute m=4 | device, score |\n|---|---|---|---|---|---|")
    for g in G:
        row = [find(group=group, policy=p, gamma=g, m=m) for p, m in pol]
        if any(row):
            print(f"| {g} | " + " | ".join(f(c) for c in row) + " |")
print(
    "\n| other cells | gamma | loss - unbounded | s.e. | dropped | rerouted | max/mean | device max/mean | no expert left | gate mass kept |\n|---|---|---|---|---|---|---|---|---|---|"
)
for c in C:
    if c["group"] not in ("main", "renorm"):
        opt = ", ".join(
            f"{k}={c[k]}"
            for k, v in (("m", 0), ("rho", 0.0), ("key", "gate"), ("domain", "batch"), ("renorm", False), ("tau", 1.0))
            if c.get(k, v) != v
        )
        print(
            f"| {c['group']}: {c['policy']} {opt} | {c['gamma']} | {c['delta']:+.4f} | {c['delta_se']:.4f} | {100*c['drop']:.2f} % | {100*c['rerouted']:.2f} % "
            f"| {c['max_mean']:.2f} | {c['dev_max_mean']:.2f} | {100*c['zero_expert']:.2f} % | {c['mass']:.3f} |"
        )
se = [c["delta_se"] for c in C if c["group"] == "main" and c["gamma"] in (0.75, 1.0, 1.25)]
if se:
    print(f"\nStandard error of the paired differences at gamma 0.75 to 1.25: {min(se):.4f} to {max(se):.4f}.")
