#!/usr/bin/env python3
"""A served model under load, ours in three weight formats and vLLM's OpenAI server, in turn: 32 clients, each sending its
next request (128 prompt tokens, 64 to generate, streamed) when its last has ended.

usage: served.py FOLDER MODEL [--build-dir build/release] [--rounds 1] [--without vllm] [--output FILE]

FOLDER is install.sh's, MODEL the model that it was given. Clients and server share two cores. Appends to docs/bench one JSON
line a format: the median over the rounds of output tokens/s, and beside it the 99th percentile of the time between two
tokens, resident memory at its highest, and both of vLLM's. Nothing else may run.
"""
import argparse
import asyncio
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import record  # noqa: E402

CLIENTS, REQUESTS, PROMPT_TOKENS, NEW_TOKENS = 32, 96, 128, 64
FORMATS = ("int4", "int8", "bf16")


def percentile(values, share):
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)]


def resident_mib(pid):
    """The highest so far of a process and those that it has started, together."""
    pids, total = [pid], 0
    while pids:
        each = pids.pop()
        try:
            status = pathlib.Path(f"/proc/{each}/status").read_text()
            for task in pathlib.Path(f"/proc/{each}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        except FileNotFoundError:  # it has ended
            continue
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024
    return round(total)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ours(args, weights):
    bin_dir = (record.ROOT / args.build_dir / "bin").resolve()
    with tempfile.TemporaryDirectory() as folder:
        ready_file = pathlib.Path(folder) / "ready.json"
        server = subprocess.Popen([bin_dir / "gatehouse-server", "--model", args.model, "--weights", weights, "--listen",
                                   "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--ready-file", ready_file],
                                  stderr=subprocess.DEVNULL)
        while not ready_file.exists():
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
        target = json.loads(ready_file.read_text())["listen"]
        output = subprocess.check_output(
            [bin_dir / "gatehouse-loadgen", "--target", target, "--clients", str(CLIENTS), "--requests", str(REQUESTS),
             "--warmup", "2", "--prompt-tokens", str(PROMPT_TOKENS), "--max-new-tokens", str(NEW_TOKENS), "--ignore-eos"],
            text=True, stderr=subprocess.DEVNULL)
        report = json.loads(output.splitlines()[0])
        memory = resident_mib(server.pid)
        end(server)
    return {"tokens_per_second": report["tokens_per_second"], "itl_ms_p99": 1e3 * report["inter_token_p99_seconds"], "resident_mib": memory}


async def stream(port, prompt, times):
    body = json.dumps({"model": "q", "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True,
                       "ignore_eos": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                 b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status = await reader.readline()
    assert b" 200 " in status, status
    arrived = []
    async for line in reader:
        if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
            arrived.append(time.perf_counter())
    writer.close()
    times.append(arrived)


async def load(port, num_requests):
    rng = random.Random(1)
    prompts = [[rng.randrange(256, 49000) for _ in range(PROMPT_TOKENS)] for _ in range(num_requests)]
    times = []

    async def client():
        while prompts:
            await stream(port, prompts.pop(), times)
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return times


def vllm(args):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [args.folder / "vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", args.model,
               "--served-model-name", "q", "--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", str(CLIENTS),
               "--enforce-eager", "--no-enable-prefix-caching", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_CPU_KVCACHE_SPACE": "2",
                                   "HF_HUB_OFFLINE": "1"})
    while True:
        assert server.poll() is None, "vLLM ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            break
        except OSError:
            time.sleep(0.5)
    asyncio.run(load(port, 2))
    begin = time.perf_counter()
    times = asyncio.run(load(port, REQUESTS))
    seconds = time.perf_counter() - begin
    gaps = [1e3 * (b - a) for arrived in times for a, b in zip(arrived, arrived[1:])]
    memory = resident_mib(server.pid)
    end(server)
    return {"tokens_per_second": sum(map(len, times)) / seconds, "itl_ms_p99": percentile(gaps, 0.99), "resident_mib": memory}


def medians(rounds):
    return {key: round(statistics.median(each[key] for each in rounds), 1) for key in rounds[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--build-dir", default="build/release")
    parser.add_argument("--rounds", type=int, default=1, dest="repeats")
    parser.add_argument("--without", action="append", default=[], choices=["vllm"])
    parser.add_argument("--output")
    args = parser.parse_args()
    recorder = record.Recorder(args)
    sides = {weights: [] for weights in FORMATS}
    theirs = []
    for _ in range(args.repeats):
        for weights in FORMATS:
            sides[weights].append(ours(args, weights))
            print(weights, sides[weights][-1], file=sys.stderr, flush=True)
        if "vllm" not in args.without:
            theirs.append(vllm(args))
            print("vllm_bf16", theirs[-1], file=sys.stderr, flush=True)
    for weights, rounds in sides.items():
        more = {"peers": {"vllm_bf16": medians(theirs)}} if theirs else {}
        recorder.write(f"peers.served.{CLIENTS}x{PROMPT_TOKENS}+{NEW_TOKENS}.{weights}",
                       [each["tokens_per_second"] for each in rounds], "output tokens/s", None, None,
                       "tests/bench/peers/served.py FOLDER MODEL_Q", **medians(rounds), **more)


if __name__ == "__main__":
    main()
