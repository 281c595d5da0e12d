#!/usr/bin/env python3
"""Who may include whom: the table of docs/ARCHITECTURE.md, checked. Prints each arrow that is not in it.

A file belongs to the longest prefix of MODULES that its path starts with. Its own module and kernels/base are always
allowed; tests may include everything.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

MODULES = {  # path prefix -> module
    "kernels/base/": "base",
    "kernels/": "kernels",
    "kernels/cpu/": "cpu",
    "kernels/reference/": "reference",
    "kernels/backends_cpu.cc": "backend list",
    "engine/json/": "json",
    "engine/request/": "request",
    "engine/chat_template/": "chat template",
    "engine/tokenizer/": "tokenizer",
    "engine/cache/": "cache",
    "engine/cache/block_pool": "block pool",
    "engine/cache/prefix_index": "block pool",
    "engine/scheduler/": "scheduler",
    "engine/scheduler/step_plan": "step plan",
    "engine/comm/": "comm",
    "engine/comm/membership": "membership",
    "engine/lab/": "lab",
    "engine/moe/": "moe",
    # Values: what is asked of routing, and what it decided.
    "engine/moe/calibration": "routing values",
    "engine/moe/exchange_call": "routing values",
    "engine/moe/expert_placement": "routing values",
    "engine/moe/pinned_policy": "routing values",
    "engine/moe/route_decision": "routing values",
    "engine/moe/route_plan": "routing values",
    "engine/moe/routed_token": "routing values",
    "engine/moe/routing_policy": "routing values",
    "engine/model/": "model",
    "engine/sampling/": "sampling",
    "engine/worker": "worker",
    "engine/fault_board": "faults",
    "engine/faulty_rank": "worker",
    "engine/group_worker": "worker",
    "engine/local_rank": "worker",
    "engine/rank_peer": "worker",
    "engine/remote_ranks": "worker",
    "engine/memory_plan": "memory plan",
    "engine/rank.": "worker",
    "engine/rank_slice": "worker",
    "engine/route_recorder": "worker",
    "engine/": "engine",
    "engine/rebalance_status": "engine api",
    "engine/step_stats": "engine api",
    "engine/engine.h": "engine api",
    "engine/engine_config": "engine config",
    "server/": "server",
    "server/deployment": "deployment",
    "server/deployment_config": "server",
    "server/heartbeat": "deployment",
    "server/main.cc": "deployment",
    "server/rank_worker": "deployment",
    "server/remote_rank": "deployment",
    "server/worker_": "deployment",
    "client/": "client",
    "gatehouse/v1/": "proto",
}

ALLOWED = {  # module -> modules it may include, besides itself and base
    "base": [],
    "kernels": [],
    "cpu": ["kernels"],
    "reference": ["kernels"],
    "backend list": ["kernels", "cpu"],
    "json": [],
    "request": ["kernels", "routing values"],
    "chat template": ["kernels", "tokenizer", "json"],
    "tokenizer": ["kernels", "json"],
    "block pool": ["kernels"],
    "faults": [],
    "membership": [],
    "comm": ["membership"],
    "cache": ["kernels", "block pool"],
    "step plan": ["kernels", "routing values"],
    "engine config": ["kernels", "request"],
    "scheduler": ["block pool", "request", "step plan", "kernels", "engine config", "routing values"],
    "routing values": ["kernels", "json", "comm"],
    "moe": ["kernels", "json", "routing values", "comm"],
    "lab": ["moe", "routing values", "engine", "engine config", "model", "cache", "tokenizer", "kernels"],
    "model": ["kernels", "json", "moe", "routing values", "cache", "step plan", "request"],
    "sampling": ["kernels", "request"],
    "memory plan": ["kernels", "model", "cache", "engine config"],
    "worker": ["kernels", "model", "moe", "comm", "membership", "faults", "routing values", "cache", "block pool", "sampling", "step plan", "engine config",
               "memory plan"],
    "engine api": ["kernels", "membership", "request", "chat template", "tokenizer", "model", "engine config", "memory plan", "routing values"],
    "engine": ["engine api", "chat template", "engine config", "memory plan", "kernels", "request", "tokenizer", "scheduler", "step plan", "block pool", "cache", "moe",
               "routing values", "model", "sampling", "worker", "comm", "membership", "faults"],
    "server": ["engine api", "faults", "membership", "chat template", "engine config", "request", "routing values", "tokenizer", "kernels", "proto"],
    "deployment": ["server", "engine", "engine api", "engine config", "worker", "comm", "membership", "routing values", "moe", "step plan",
                   "kernels", "proto"],
    "client": ["proto"],
    "proto": [],
}

# Only the server and the client know gRPC and protobuf; only the server knows Prometheus.
FOREIGN = {"grpcpp/": ["server", "deployment", "client"], "google/": ["server", "deployment", "client"], "prometheus/": ["server"]}


def longest_prefix(path, table):
    return table[max((p for p in table if path.startswith(p)), key=len)] if any(map(path.startswith, table)) else None


def problems_of(path):
    module = longest_prefix(path, MODULES)
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        include = re.match(r'#include\s+[<"]([^>"]+)[>"]', line)
        if not include:
            continue
        target = longest_prefix(include[1], MODULES)
        if target and target not in (module, "base", *ALLOWED[module]):
            yield f"{path}:{number}: {module} may not include {include[1]} ({target})"
        owners = longest_prefix(include[1], FOREIGN)
        if owners and module not in owners:
            yield f"{path}:{number}: {module} may not include {include[1]}; only {' and '.join(owners)} may"


def main():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "engine", "kernels", "server", "client"],
                            capture_output=True, text=True, check=True).stdout.splitlines()
    files = [path for path in listed if path.endswith((".h", ".cc")) and (ROOT / path).exists()]
    problems = [problem for path in files for problem in problems_of(path)]
    print("\n".join(problems + [f"{len(files)} files, {len(problems)} forbidden includes"]))
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main())
