#!/usr/bin/env python3
"""Steps of a model by Gatehouse and by the peers that install.sh made, in turn, and what each reached.

usage: compare.py FOLDER MODEL [--build-dir build/release] [--rounds 3] [--isa avx2] [--without vllm] [--output FILE]

FOLDER is install.sh's, MODEL the model that it was given. A round runs each side once, ours between the peers' formats;
all on two threads. Appends to docs/bench one JSON line for each figure: the median over the rounds of tokens/s, and of
ours its ratio to each peer, round by round. Nothing else may run: llama.cpp's threads spin while they wait.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import record  # noqa: E402

# What of the peers is set against each of our formats.
RIVALS = {"int4": ("llama_Q4_0",), "int8": ("llama_Q8_0",), "bf16": ("llama_bf16", "vllm_bf16")}


class Comparison:
    def __init__(self, args):
        self.args = args
        self.recorder = record.Recorder(args)
        self.llama = args.folder / ("llama-avx2" if args.isa == "avx2" else "llama-native")
        self.rates = {}  # side -> (measure, size) -> tokens/s of each round
        self.commands = {}
        self.limits = []

    def run(self, side, command, **environment):
        words = [str(word) for word in command]
        output = subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL, env={**os.environ, **environment})
        for line in map(json.loads, filter(lambda text: text.startswith("{"), output.splitlines())):
            if line["measure"] not in ("prefill", "decode"):
                continue
            figure = line["measure"], line.get("batch", line.get("tokens"))
            self.rates.setdefault(side, {}).setdefault(figure, []).append(line["tokens_per_second"])
            if "read_limit_gb_per_second" in line:
                self.limits.append(line["read_limit_gb_per_second"])
        shown = " ".join(words).replace(str(self.args.folder), "FOLDER").replace(str(self.args.model), "MODEL_Q")
        self.commands[side] = shown.replace(str(record.ROOT) + "/", "")

    def round(self):
        for weights, rivals in RIVALS.items():
            isa = ("--isa", self.args.isa) if self.args.isa else ()
            self.run(weights, [self.recorder.bin / "model_bench", self.args.model, "--weights", weights, "--repeats", 3, *isa])
            for rival in rivals:
                engine, kind = rival.split("_", 1)
                if engine in self.args.without:
                    continue
                if engine == "llama":
                    self.run(rival, [self.llama / "bin/python", HERE / "llama_steps.py", self.args.folder / f"model-{kind}.gguf",
                                     "--rounds", 3])
                else:
                    self.run(rival, [self.args.folder / "vllm/bin/python", HERE / "vllm_steps.py", self.args.model],
                             VLLM_CPU_OMP_THREADS_BIND="0-1")

    def write(self):
        isa = self.args.isa or "the best of this machine"
        for weights, rivals in RIVALS.items():
            for (measure, size), ours in self.rates[weights].items():
                against = {}
                for rival in rivals:
                    theirs = self.rates.get(rival, {}).get((measure, size))
                    if theirs:
                        against[rival] = {"tokens_per_second": round(statistics.median(theirs), 1),
                                          "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs)), 2),
                                          "command": self.commands[rival]}
                self.recorder.write(f"peers.{measure}.{size}.{weights}", ours, "tokens/s", None, None, self.commands[weights],
                                    isa=isa, read_limit_gb_per_second=round(statistics.median(self.limits), 1), peers=against)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--build-dir", default="build/release")
    parser.add_argument("--rounds", type=int, default=3, dest="repeats")
    parser.add_argument("--isa", help="ours; avx2: llama.cpp's build for it, too")
    parser.add_argument("--without", action="append", default=[], choices=["llama", "vllm"])
    parser.add_argument("--output")
    args = parser.parse_args()
    comparison = Comparison(args)
    for number in range(args.repeats):
        print(f"round {number + 1} of {args.repeats}", file=sys.stderr)
        comparison.round()
    comparison.write()


if __name__ == "__main__":
    main()
