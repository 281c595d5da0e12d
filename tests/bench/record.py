#!/usr/bin/env python3
"""Measures what docs/bench/METHOD.md defines and appends one JSON line a figure to docs/bench.

usage: record.py BUILD_DIR --big-model DIR [--repeats 5] [--output FILE]

BUILD_DIR is a built preset (build/release). DIR is a folder made by make_random_model.py; the demo model of the
repository serves for the rest. Takes some five minutes; nothing else should run.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "models/demo"
KINDS = "demo|qwen2|llama3|mixtral|olmoe|granite|deepseek_v2|deepseek_v3|gpt_oss"


def cpu_model():
    return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)


def commit():
    def git(*words):
        return subprocess.check_output(["git", "-C", ROOT, *words], text=True).strip()
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain") else "")


class Recorder:
    def __init__(self, args):
        self.bin = (ROOT / args.build_dir / "bin").resolve()
        self.repeats = args.repeats
        day = datetime.date.today().isoformat()
        machine = re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-")
        self.output = pathlib.Path(args.output or ROOT / f"docs/bench/{day}-{machine}.jsonl")
        self.common = {"commit": commit(), "preset": pathlib.Path(args.build_dir).name, "cpu": cpu_model(),
                       "threads": len(os.sched_getaffinity(0))}

    def write(self, bench, values, unit, bound, bound_from, command, **more):
        median = statistics.median(values)
        line = {"bench": bench, "value": round(median, 4), "unit": unit,
                "mad": round(statistics.median(abs(v - median) for v in values), 4), "repeats": len(values),
                "bound": bound, "bound_from": bound_from, **more, **self.common, "command": command}
        with open(self.output, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def run(self, *words):
        """Output of a program of the build, and the command as a stranger would type it."""
        output = subprocess.check_output([self.bin / words[0], *map(str, words[1:])], text=True,
                                         stderr=subprocess.DEVNULL)
        shown = [str(w).replace(str(ROOT) + "/", "") for w in words]
        return output, " ".join([f"build/{self.common['preset']}/bin/{shown[0]}", *shown[1:]])

    def model_steps(self, model):
        """Prefill against the peaks of operations, decode against the read limit, both measured in the same process."""
        runs = {}
        for _ in range(self.repeats):
            output, command = self.run("model_bench", model, "--repeats", 3)
            for line in map(json.loads, output.splitlines()):
                runs.setdefault((line["measure"], line.get("batch", line.get("tokens"))), []).append(line)
        command = command.replace(str(model), "MODEL_Q")
        for (measure, size), lines in runs.items():
            if "cpu_ms" in lines[0]:
                self.write(f"model_q.{measure}_cpu.{size}", [line["cpu_ms"] for line in lines], "ms of CPU, all threads", None,
                           None, command, isa=lines[0]["isa"], weights=lines[0]["weights"], dropped=lines[0]["dropped"],
                           rerouted=lines[0]["rerouted"], ms=round(statistics.median(line["ms"] for line in lines), 1))
            if measure in ("prefill_pair", "prefill_shared", "prefill_threshold"):
                continue
            key, bound_key, unit = (("share_of_peak", "peak_float_gop_per_second", "share of the peaks")
                                    if measure == "prefill" else
                                    ("share_of_read_limit", "read_limit_gb_per_second", "share of read bandwidth"))
            bound = {"prefill": 0.4}.get(measure, 0.6 if size == 1 else None)
            self.write(f"model_q.{measure}.{size}", [line[key] for line in lines], unit, bound,
                       "requirement" if bound else None, command, isa=lines[0]["isa"], weights=lines[0]["weights"],
                       ms=round(statistics.median(line["ms"] for line in lines), 3),
                       tokens_per_second=round(statistics.median(line["tokens_per_second"] for line in lines), 2),
                       limit={bound_key: round(statistics.median(line[bound_key] for line in lines), 2)})

    def scheduler_step(self):
        output, command = self.run("scheduler_bench", "--benchmark_format=json",
                                   f"--benchmark_repetitions={self.repeats}")
        lines = [b for b in json.loads(output)["benchmarks"] if b["run_type"] == "iteration"]
        self.write("scheduler.step.256x4096", [b["real_time"] for b in lines], lines[0]["time_unit"], 50,
                   "requirement", command)

    def routing(self):
        """Decisions of one layer on one thread, by CPU time: 512 rows, 64 experts, top 8."""
        output, command = self.run("routing_bench", "--benchmark_format=json",
                                   f"--benchmark_repetitions={self.repeats}", "--benchmark_min_time=0.2")
        runs = {}
        for line in json.loads(output)["benchmarks"]:
            if line["run_type"] == "iteration":
                runs.setdefault(line["name"].split("/")[0], []).append(line["per_token"] * 1e6)
        for name, values in runs.items():
            bound = 1.5 if name == "RouteExactly" else 3
            self.write(f"routing.{name}.512x64x8", values, "us a token", bound, "requirement", command)

    def metrics(self):
        """What the engine's thread spends on counting a step, by CPU time, at level 2."""
        output, command = self.run("metrics_bench", "--benchmark_format=json",
                                   f"--benchmark_repetitions={self.repeats}", "--benchmark_min_time=0.2")
        runs = {}
        for line in json.loads(output)["benchmarks"]:
            if line["run_type"] == "iteration":
                runs.setdefault(line["name"].split("/")[1], []).append(line["cpu_time"])
        for name, values in runs.items():
            self.write(f"metrics.step.{name}", values, "us", None, None, command)

    def tokenizer(self):
        """Encoding on one core by CPU time: MB/s of mixed text, and the slowest text of 1 MiB without a break."""
        output, command = self.run("tokenizer_bench", "--benchmark_filter=Encode/", "--benchmark_format=json",
                                   f"--benchmark_repetitions={self.repeats}", "--benchmark_min_time=0.05")
        runs = {}
        for line in json.loads(output)["benchmarks"]:
            if line["run_type"] == "iteration" and "short_prompt" not in line["name"]:
                kind, text = re.fullmatch(r"Encode/(%s)_(.*)" % KINDS, line["name"].split("/repeats")[0]).groups()
                seconds = line["cpu_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[line["time_unit"]]
                runs.setdefault(kind, {}).setdefault(text, []).append(seconds)
        for kind, texts in runs.items():
            self.write(f"tokenizer.mixed.{kind}", [2**20 / 1e6 / each for each in texts.pop("mixed")], "MB/s of one core", 5,
                       "requirement", command)
            slowest = max(texts, key=lambda text: statistics.median(texts[text]))
            self.write(f"tokenizer.unbroken.{kind}", texts[slowest], "s for 1 MiB", 1, "requirement", command, text=slowest)

    def serving(self):
        # Saturated: 80,000 tokens/s are offered, more than two cores can send one by one, so some share a message.
        # Unpaced, the engine makes so many tokens that they are merged by the dozen: fewer messages, more tokens.
        paced, saturated, unpaced = [], [], []
        for _ in range(self.repeats):
            output, paced_command = self.run("serving_bench", DEMO, "--streams", 32, "--rate", 500)
            paced.append(json.loads(output))
            output, saturated_command = self.run("serving_bench", DEMO, "--streams", 32, "--rate", 2500)
            saturated.append(json.loads(output))
            output, unpaced_command = self.run("serving_bench", DEMO, "--streams", 32, "--rate", 0)
            unpaced.append(json.loads(output))
        for key, unit, bound in [("tokens_per_message", "tokens", 1.2), ("cpu_us_per_token", "us, both ends", 40),
                                 ("delivery_ms_p99", "ms", 5)]:
            self.write(f"serving.paced.32x500.{key}", [line[key] for line in paced], unit, bound, "requirement",
                       paced_command)
        self.write("serving.saturated.messages_per_second", [line["messages_per_second"] for line in saturated],
                   "messages/s", 40000, "requirement", saturated_command,
                   tokens_per_second=round(statistics.median(line["tokens_per_second"] for line in saturated)))
        self.write("serving.unpaced.tokens_per_second", [line["tokens_per_second"] for line in unpaced], "tokens/s",
                   None, None, unpaced_command,
                   messages_per_second=round(statistics.median(line["messages_per_second"] for line in unpaced)))

    def threshold_serving(self, model, threshold):
        """Requests through the server, exact and isolated by a threshold in turn: tokens/s, and CPU time a token."""
        layers = json.loads((model / "config.json").read_text())
        experts = ", ".join([str(threshold)] * layers["num_experts"])
        policy = "isolated:\n  policy: threshold\n  affinity: SHARE\n  bound_decode: true\n  exempt_layers: {}\n  thresholds:\n"
        policy += "".join(f"  - {{layer: {i}, experts: [{experts}]}}\n" for i in range(layers["num_hidden_layers"]))
        loads = {"prefill": ("--prompt-tokens", 480, "--max-new-tokens", 1, "--clients", 2, "--requests", 6),
                 "decode": ("--prompt-tokens", 8, "--max-new-tokens", 64, "--clients", 16, "--requests", 16)}
        runs = {}
        with tempfile.TemporaryDirectory() as folder:
            config, ready_file = pathlib.Path(folder) / "routing.yaml", pathlib.Path(folder) / "ready.json"
            config.write_text(policy)
            server = subprocess.Popen(
                [self.bin / "gatehouse-server", "--model", model, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
                 "--routing-config", config, "--ready-file", ready_file], stderr=subprocess.DEVNULL)
            while not ready_file.exists():
                assert server.poll() is None, "the server ended"
                time.sleep(0.01)
            ready = json.loads(ready_file.read_text())
            for seed in range(self.repeats):
                for name, shape in loads.items():
                    for mode in ("exact", "isolated"):
                        output, command = self.run("gatehouse-loadgen", "--target", ready["listen"], "--server-pid", server.pid,
                                                   "--ignore-eos", "--mode", mode, "--seed", 100 + seed, *shape)
                        runs.setdefault((name, mode), []).append((json.loads(output.splitlines()[0]), command))  # its one run
            with urllib.request.urlopen(f"http://{ready['metrics']}/metrics") as answer:
                pairs = {fate: float(re.search(rf'assignments_total{{fate="{fate}",mode="threshold"}} (\S+)', text).group(1))
                         for text in [answer.read().decode()] for fate in ("kept", "dropped")}
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        dropped = round(pairs["dropped"] / (pairs["kept"] + pairs["dropped"]), 4)
        for (name, mode), results in runs.items():
            rate = "prompt_tokens_per_second" if name == "prefill" else "tokens_per_second"
            tokens = [result[rate] * result["wall_seconds"] for result, _ in results]
            cpu = [result["server_cpu_seconds"] / count * 1e6 for (result, _), count in zip(results, tokens)]
            command = re.sub(r"--target \S+ --server-pid \d+ ", "", results[0][1])
            more = {"tokens_per_second": round(statistics.median(result[rate] for result, _ in results), 1),
                    "dropped": dropped if mode == "isolated" else 0, "threshold_on_share": threshold}
            self.write(f"served.model_q.{name}.{mode}", cpu, "us of CPU a token", None, None, command, **more)

    def demo_server(self):
        """Process start to ready file, and what is resident beyond weights and KV cache once it has answered."""
        ready, beyond = [], []
        for _ in range(self.repeats):
            with tempfile.TemporaryDirectory() as folder:
                ready_file = pathlib.Path(folder) / "ready.json"
                begin = time.monotonic()
                server = subprocess.Popen(
                    [self.bin / "gatehouse-server", "--model", DEMO, "--listen", "127.0.0.1:0", "--metrics-listen",
                     "127.0.0.1:0", "--ready-file", ready_file], stderr=subprocess.DEVNULL)
                while not ready_file.exists():
                    assert server.poll() is None, "the server ended"
                    time.sleep(0.002)
                ready.append(time.monotonic() - begin)
                target = json.loads(ready_file.read_text())["listen"]
                self.run("gatehouse", "generate", "--target", target, "--max-new-tokens", 32, "In the beginning")
                status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
                resident = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024
                weights = (DEMO / "model.safetensors").stat().st_size / 2**20
                beyond.append(resident - weights)
                server.send_signal(signal.SIGTERM)
                assert server.wait() == 0
        command = "gatehouse-server --model models/demo --ready-file F"
        self.write("demo.ready", ready, "s", 2, "requirement", command)
        self.write("demo.memory_beyond_weights", beyond, "MiB, KV pages touched so far counted", 100, "requirement",
                   command)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build_dir")
    parser.add_argument("--big-model", required=True, type=pathlib.Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output")
    args = parser.parse_args()
    recorder = Recorder(args)
    recorder.demo_server()
    recorder.scheduler_step()
    recorder.routing()
    recorder.metrics()
    recorder.tokenizer()
    recorder.serving()
    recorder.model_steps(args.big_model)
    recorder.threshold_serving(args.big_model, 0.095)


if __name__ == "__main__":
    main()
