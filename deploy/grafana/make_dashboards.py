#!/usr/bin/env python3
"""Writes dashboards/*.json, which Grafana reads. A dashboard is a module beside this file with UID and build().

    deploy/grafana/make_dashboards.py            writes them
    deploy/grafana/make_dashboards.py --check    says which are not what it would write; needs no more than Python
"""
import json
import pathlib
import sys

import experts
import machine
import ranks
import serving

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"
DASHBOARDS = [serving, experts, ranks, machine]


def texts():
    """File name -> content."""
    return {f"{module.UID}.json": json.dumps(module.build(), indent=1) + "\n" for module in DASHBOARDS}


def main():
    wanted = texts()
    if sys.argv[1:] == ["--check"]:
        found = {path.name: path.read_text() for path in FOLDER.iterdir()}
        differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        print("\n".join(f"{FOLDER / name}: not what make_dashboards.py writes" for name in differing)
              or f"{len(wanted)} dashboards as written")
        return 1 if differing else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
