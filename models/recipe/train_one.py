#!/usr/bin/env python3
"""Train one demo model on CPU: bf16 GEMMs, float32 master weights, AdamW.

Learning rate: warm-up, constant, then a cosine to 2 % over the last --decay steps. One thread a process: two OpenMP
threads spent 2.3 CPU-seconds a step against 0.79 for one, so train both models side by side instead.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import Config, Model, save


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("out", type=Path, help="folder for log.jsonl, resume.pt and model/")
    parser.add_argument("--gate", choices=["learned", "grap"], default="learned")
    parser.add_argument("--gamma", type=float, default=0.0, help="training capacity factor; 0 is dropless")
    parser.add_argument("--tau", type=float, default=1.0, help="share of affinity mass an expert keeps")
    parser.add_argument("--ecr", type=int, default=0, help="floor of the adaptive capacity in tokens")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--decay", type=int, default=900)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="windows of the context length")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--wd", type=float, default=0.1)
    parser.add_argument("--aux", type=float, default=0.01, help="load-balance coefficient")
    parser.add_argument("--eval-every", type=int, default=400)
    parser.add_argument("--eval-batches", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="continue from OUT/resume.pt")
    return parser.parse_args()


def read_ids(path):
    return torch.from_numpy(np.fromfile(path, dtype=np.uint16).astype(np.int64))


def shuffled_windows(num_tokens, length, rng):
    """Epochs of non-overlapping windows with a random phase, shuffled."""
    while True:
        offset = rng.integers(0, length)
        yield from rng.permutation(np.arange(offset, num_tokens - length - 1, length))


def inputs_and_targets(ids, starts, length):
    index = torch.as_tensor(np.asarray(starts))[:, None] + torch.arange(length + 1)
    rows = ids[index]
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def evaluate(model, val, starts, num_batches):
    """Nats per token, and the largest expert load over the mean, per layer."""
    model.eval()
    total = count = 0
    ratio = torch.zeros(model.c.layers)
    for j in range(num_batches):
        x, y = inputs_and_targets(val, starts[j * 8 : (j + 1) * 8], model.c.ctx)
        with torch.autocast("cpu", torch.bfloat16):
            z = model(x)
        total += F.cross_entropy(z.float().view(-1, model.c.vocab), y.reshape(-1), reduction="sum").item()
        count += y.numel()
        ratio += torch.stack([b.mlp.counts.max() / b.mlp.counts.float().mean() for b in model.blocks])
    model.train()
    return total / count, (ratio / num_batches).tolist()


def make_optimizer(model, args):
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": args.wd},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def learning_rate(step, args):
    decayed = max(0.0, 1 - (args.steps - step) / args.decay)
    return args.lr * min(1, (step + 1) / args.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * decayed)))


def train_step(model, optimizer, x, y):
    """One update; returns cross entropy, balance loss, gradient norm and the share of pairs dropped."""
    c = model.c
    with torch.autocast("cpu", torch.bfloat16):
        z = model(x)
    ce = F.cross_entropy(z.float().view(-1, c.vocab), y.reshape(-1))
    aux = sum(b.mlp.aux_loss for b in model.blocks) / c.layers
    (ce + c.aux * aux).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    dropped = sum(getattr(b.mlp, "dropped", 0.0) for b in model.blocks) / c.layers
    return ce.item(), aux.item(), norm.item(), dropped


class Log:
    """JSON lines to a file and to standard output."""

    def __init__(self, path):
        self.file = open(path, "a")

    def write(self, **values):
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    bytes_per_token = json.loads((args.data / "meta.json").read_text())["val"]["bytes_per_token"]
    vocab = len(json.loads((args.data / "tokenizer.json").read_text())["model"]["vocab"])
    train, val = read_ids(args.data / "train.bin"), read_ids(args.data / "val.bin")
    c = Config(vocab=vocab, gate=args.gate, aux=args.aux, gamma=args.gamma, tau=args.tau, ecr=args.ecr)
    model = Model(c)
    optimizer = make_optimizer(model, args)
    windows = shuffled_windows(len(train), c.ctx, np.random.default_rng(args.seed))
    val_starts = np.random.default_rng(0).permutation(np.arange(0, len(val) - c.ctx - 1, c.ctx))

    args.out.mkdir(parents=True, exist_ok=True)
    log, resume = Log(args.out / "log.jsonl"), args.out / "resume.pt"
    first_step, active_s = 0, 0.0
    if args.resume and resume.exists():
        saved = torch.load(resume)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["opt"])
        first_step, active_s = saved["step"], saved["active_s"]
        for _ in range(first_step * args.batch):
            next(windows)
    params = sum(p.numel() for p in model.parameters())
    log.write(
        params=params,
        active=params - c.layers * (c.n - c.k) * 3 * c.d * c.inter,
        steps=args.steps,
        batch_tokens=args.batch * c.ctx,
        gate=args.gate,
        gamma=args.gamma,
        tau=args.tau,
        ecr=args.ecr,
        lr=args.lr,
        wd=args.wd,
        aux=args.aux,
        seed=args.seed,
    )

    recent = []
    recent_s = 0.0
    for step in range(first_step, args.steps):
        started = time.perf_counter()
        lr = learning_rate(step, args)
        for group in optimizer.param_groups:
            group["lr"] = lr
        x, y = inputs_and_targets(train, [next(windows) for _ in range(args.batch)], c.ctx)
        recent.append(train_step(model, optimizer, x, y))
        seconds = time.perf_counter() - started
        active_s += seconds
        recent_s += seconds
        done = step + 1
        if done % 50 == 0:
            log.write(
                step=done,
                train_ce=sum(r[0] for r in recent) / len(recent),
                aux=recent[-1][1],
                drop=sum(r[3] for r in recent) / len(recent),
                gnorm=recent[-1][2],
                lr=lr,
                tok_s=len(recent) * args.batch * c.ctx / recent_s,
                active_s=active_s,
            )
            recent, recent_s = [], 0.0
        if done % args.eval_every == 0 or done == args.steps:
            nats, ratio = evaluate(model, val, val_starts, args.eval_batches)
            log.write(
                step=done,
                val_nats=nats,
                val_bpb=nats / math.log(2) / bytes_per_token,
                max_over_mean=[round(r, 3) for r in ratio],
                active_s=active_s,
            )
        if done % 400 == 0:
            torch.save(
                {"model": model.state_dict(), "opt": optimizer.state_dict(), "step": done, "active_s": active_s}, resume
            )
    save(model, args.out / "model", args.data)


if __name__ == "__main__":
    main()
