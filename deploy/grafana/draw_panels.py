#!/usr/bin/env python3
"""Draws what the panels of the dashboards show, so that a person can look without a Grafana: one PNG a dashboard.

    tests/integration/run.sh live_monitoring.py shown.json 60     (environment: tests/integration/CMakeLists.txt)
    deploy/grafana/draw_panels.py shown.json docs/dashboards      needs tests/bench/requirements-plot.txt

Grafana draws nicer; kind, unit, legend, order and values are those of the JSON. Collapsed rows are drawn too.
"""
import io
import json
import math
import pathlib
import re
import sys

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

DASHBOARDS = pathlib.Path(__file__).resolve().parent / "dashboards"
WIDTH = 24
UNITS = {"s": " s", "percentunit": " %", "reqps": " req/s", "ops": " /s", "Bps": " B/s"}
MAX_LEGENDS = 8


def legend(target, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), target["legendFormat"]) or "value"


def scaled(unit, value):
    return value * 100 if unit == "percentunit" else value


def number(unit, value):
    return f"{scaled(unit, value):.3g}{UNITS.get(unit, '')}"


def named(panel, shown, unit):
    """[(legend, times, values)] of all queries."""
    for target, series in zip(panel["targets"], shown, strict=True):
        for labels, points in series:
            times, values = zip(*points)
            yield legend(target, labels), np.array(times), np.array([scaled(unit, value) for value in values])


def draw_lines(axes, panel, shown, unit, start):
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    series = sorted(named(panel, shown, unit), key=lambda each: -np.nanmean(np.where(np.isfinite(each[2]), each[2], 0)))
    if custom.get("stacking", {}).get("mode") == "normal":
        times = sorted({t for _, each, _ in series for t in each})
        rows = [[dict(zip(t, np.nan_to_num(v))).get(at, 0) for at in times] for _, t, v in series]
        axes.stackplot(np.array(times) - start, rows, labels=[name for name, _, _ in series], alpha=0.6)
    else:
        for name, times, values in series:
            axes.plot(times - start, values, label=name, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:MAX_LEGENDS], labels[:MAX_LEGENDS], fontsize=5, ncol=2, loc="upper left", framealpha=0.6)


def draw_bars(axes, panel, shown, unit):
    last = sorted(((values[np.isfinite(values)][-1:].sum(), name) for name, _, values in named(panel, shown, unit)))[-10:]
    axes.barh(range(len(last)), [value for value, _ in last], color="lightsteelblue")
    axes.set_yticks([])
    for y, (_, name) in enumerate(last):
        axes.text(0, y, " " + name, va="center", fontsize=6)


def draw_map(axes, panel, shown, unit, start):
    series = sorted(named(panel, shown, unit), key=lambda each: float(each[0].replace("+Inf", "inf")))
    times = sorted({t for _, each, _ in series for t in each})
    cells = np.array([[dict(zip(t, v)).get(at, math.nan) for at in times] for _, t, v in series])
    if panel["targets"][0].get("format") == "heatmap":  # buckets of a histogram count all below them
        cells = np.diff(cells, axis=0, prepend=0)
        cells[cells == 0] = math.nan
    axes.imshow(cells, aspect="auto", origin="lower", cmap="turbo", interpolation="nearest",
                extent=(times[0] - start, times[-1] - start, -0.5, len(series) - 0.5))
    shown_rows = range(0, len(series), max(1, len(series) // 8))
    axes.set_yticks(list(shown_rows), [series[i][0] for i in shown_rows])


def draw_matrix(figure, axes, panel, shown):
    options = panel["transformations"][0]["options"]
    cells = {(int(labels[options["rowField"]]), int(labels[options["columnField"]])): points[0][1]
             for labels, points in shown[0]}
    rows, columns = (sorted({key[i] for key in cells}) for i in (0, 1))
    grid = np.array([[cells.get((row, column), math.nan) for column in columns] for row in rows])
    image = axes.imshow(grid, aspect="auto", cmap="turbo", vmin=0, vmax=4)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=options["columnField"], ylabel=options["rowField"])
    for (y, x), value in np.ndenumerate(grid):
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color="white",
                  bbox={"facecolor": "black", "alpha": 0.25, "pad": 0.5, "linewidth": 0})
    figure.colorbar(image, ax=axes, pad=0.01)


def draw_number(axes, panel, shown, unit, start):
    name, times, values = next(named(panel, shown, unit))
    axes.fill_between(times - start, values, alpha=0.15)
    last = values[np.isfinite(values)][-1] / (100 if unit == "percentunit" else 1)
    axes.text(0.5, 0.5, number(unit, last), transform=axes.transAxes, ha="center", va="center", fontsize=16)
    axes.set_yticks([])
    axes.set_ylim(bottom=0)


def draw(dashboard, shown, path):
    panels = [each for panel in dashboard["panels"] for each in [panel, *panel.get("panels", [])] if each["type"] != "row"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    start = min(points[0][0] for queries in shown.values() for series in queries for _, points in series
                if len(points) > 1)
    figure = plt.figure(figsize=(14, height * 0.26), dpi=75)
    figure.suptitle(dashboard["title"], y=1 - 0.1 / height, fontsize=12)
    for row in dashboard["panels"]:
        if row["type"] == "row":
            figure.text(0.005, 1 - (row["gridPos"]["y"] + 1.4) / (height + 2), row["title"], weight="bold")
    for panel in panels:
        place = panel["gridPos"]
        top = 1 - (place["y"] + 1.6) / (height + 2)
        size = place["h"] / (height + 2)
        axes = figure.add_axes((place["x"] / WIDTH * 0.98 + 0.035, top - size + 1.6 / (height + 2),
                                place["w"] / WIDTH * 0.98 - 0.045, size - 2.6 / (height + 2)))
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axes.set_title(panel["title"] + (f" [{UNITS[unit].strip()}]" if unit in UNITS else ""), fontsize=8, loc="left")
        axes.tick_params(labelsize=6)
        series = shown[str(panel["id"])]
        if panel["type"] == "stat":
            draw_number(axes, panel, series, unit, start)
        elif panel["type"] == "bargauge":
            draw_bars(axes, panel, series, unit)
        elif panel["type"] == "heatmap":
            draw_map(axes, panel, series, unit, start)
        elif panel["type"] == "table":
            draw_matrix(figure, axes, panel, series)
        else:
            draw_lines(axes, panel, series, unit, start)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)


def main():
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for each in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        dashboard = json.loads((DASHBOARDS / f"{each['uid']}.json").read_text())
        draw(dashboard, each["panels"], folder / f"{each['uid']}.png")


if __name__ == "__main__":
    main()
