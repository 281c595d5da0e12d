#!/usr/bin/env python3
"""Quality against capacity at batch time: validation loss under (policy, capacity factor), for one checkpoint.

usage: curve.py MODEL_DIR DATA OUT.json [--batches 16]
Capacity domain: the whole batch of 16 x 256 tokens, every layer on its own. C = ceil(gamma T k / n).
"""

import argparse, json, math, time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import load, sort_pairs

c, L, DEV = None, 256, 4  # model configuration, row length, virtual devices


def rank_in_group(group, key, n):
    """Rank of every pair in its group by descending key (ties: lower index first)."""
    o = sort_pairs(group, key)
    cnt = torch.bincount(group, minlength=n)
    r = torch.empty_like(o)
    r[o] = torch.arange(len(o)) - (cnt.cumsum(0) - cnt)[group[o]]
    return r


class Policy:
    def __init__(self, name, gamma, renorm=False, m=0, rho=0.0, key="gate", domain="batch", tau=1.0):
        self.name, self.gamma, self.renorm, self.m, self.rho, self.key, self.domain, self.tau = (
            name,
            gamma,
            renorm,
            m,
            rho,
            key,
            domain,
            tau,
        )
        self.gen = torch.Generator().manual_seed(7)
        self.rows = []

    def __call__(self, moe, x, z, p, idx, w):
        T, k, n = idx.shape[0], c.k, c.n
        tok = torch.arange(T).repeat_interleave(k)
        ex, wt = idx.flatten(), w.flatten()
        if self.name == "top1":
            keep = torch.arange(T * k) % k == 0
            return self.finish(tok[keep], ex[keep], torch.ones(T) if self.renorm else wt[keep], T, w, 0)
        if math.isinf(self.gamma) and self.tau == 1:
            return self.finish(tok, ex, wt, T, w, 0)
        if self.key == "gate":  # learned gate: softmax probability; GrAP: cosine affinity
            full = p if c.gate == "learned" else z / c.scale
        elif self.key == "logit":
            full = z
        elif self.key == "prob":
            full = p
        elif self.key == "cosine":
            full = F.normalize(x, dim=-1) @ F.normalize(moe.gate, dim=-1).t()
        elif self.key == "share":  # weight after renormalisation over the top k
            full = torch.zeros_like(p).scatter(1, idx, w)
        elif self.key == "rank":  # first choices before second choices, then by softmax probability
            full = p + torch.zeros_like(p).scatter(1, idx[:, :1], 1.0)
        score = full.gather(1, idx).flatten()
        key = {"arrival": -tok.float(), "random": torch.rand(T * k, generator=self.gen)}.get(self.name, score)
        if self.name == "device":
            per = n // DEV
            keep = rank_in_group(ex // per, key, DEV) < math.ceil(self.gamma * T * k / DEV)
        elif self.name == "global":  # one bound over all experts: a threshold on the score, no balance
            keep = rank_in_group(torch.zeros_like(ex), key, 1) < math.ceil(self.gamma * T * k)
        elif (
            self.name == "eager"
        ):  # LocMoE+ adaptive capacity: the top share tau of each expert's affinity mass, floor 25
            o = sort_pairs(ex, key)
            rank = rank_in_group(ex, key, n)[o]
            pos, es = key[o].clamp(min=0).double(), ex[o]
            total = torch.zeros(n, dtype=torch.double).index_add_(0, es, pos)
            first = torch.bincount(ex, minlength=n).cumsum(0) - torch.bincount(ex, minlength=n)
            cs = torch.cat((pos.new_zeros(1), pos.cumsum(0)))
            before = cs[:-1] - cs[first][es]
            up = T * k if math.isinf(self.gamma) else math.ceil(self.gamma * T * k / n)
            keep = torch.zeros(T * k, dtype=torch.bool)
            keep[o] = ((before < self.tau * total[es]) | (rank < 25)) & (rank < up)
        elif self.domain == "request":  # every row of the batch is its own capacity domain
            keep = rank_in_group((tok // L) * n + ex, key, (T // L) * n) < math.ceil(self.gamma * L * k / n)
        else:
            cap = math.ceil(self.gamma * T * k / n)
            keep = rank_in_group(ex, key, n) < cap
        rerouted = 0
        kt, ke, kw = tok[keep], ex[keep], wt[keep]
        if self.m and not keep.all():
            ev = (~keep).nonzero().flatten()
            ev = ev[torch.argsort(-score[ev], stable=True)]
            order = p.topk(min(n, k + self.m), -1).indices[:, k:]
            if self.name == "device":
                room = [
                    math.ceil(self.gamma * T * k / DEV) - v for v in torch.bincount(ke // per, minlength=DEV).tolist()
                ]
                slot = lambda j: j // per
            else:
                room = [cap - v for v in torch.bincount(ke, minlength=n).tolist()]
                slot = lambda j: j
            cand, P, W = order.tolist(), p.tolist(), p.gather(1, idx).sum(-1).tolist()
            used, nt, ne, nw = set(), [], [], []
            for t, i in zip(tok[ev].tolist(), ex[ev].tolist()):
                for j in cand[t]:
                    if room[slot(j)] > 0 and (t, j) not in used and P[t][j] >= self.rho * P[t][i]:
                        room[slot(j)] -= 1
                        used.add((t, j))
                        nt.append(t)
                        ne.append(j)
                        nw.append(P[t][j] / W[t])
                        break
            rerouted = len(nt)
            kt, ke = torch.cat((kt, torch.tensor(nt, dtype=torch.long))), torch.cat(
                (ke, torch.tensor(ne, dtype=torch.long))
            )
            kw = torch.cat((kw, torch.tensor(nw)))
        return self.finish(kt, ke, kw, T, w, rerouted)

    def finish(self, tok, ex, wt, T, w, rerouted):
        have = torch.zeros(T).index_add_(0, tok, wt)
        load = torch.bincount(ex, minlength=c.n).float()
        base = T * (1 if self.name == "top1" else c.k)
        self.rows.append(
            (
                1 - len(tok) / base,
                rerouted / base,
                (load.max() / load.mean()).item(),
                (load.max() / (T * c.k / c.n)).item(),
                (load.view(DEV, -1).sum(1).max() / load.sum() * DEV).item(),
                (have == 0).float().mean().item(),
                have.mean().item(),
                (load.min() / load.mean()).item(),
            )
        )
        if self.renorm and self.name != "top1":
            wt = wt * (1 / have.clamp(min=1e-9)).clamp(max=2.0)[tok]  # g' = g min(W/S, 2); W = 1 here
        return tok, ex, wt


def main():
    global c, L
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("data", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--batches", type=int, default=16)
    ap.add_argument("--rows", type=int, default=16)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--only", choices=["main", "layers", "eager"], default="main")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    model = load(a.model)
    c, L = model.c, model.c.ctx
    meta = json.load(open(a.data / "meta.json"))
    bpt = meta["val"]["bytes_per_token"]
    val = torch.from_numpy(np.fromfile(a.data / "val.bin", dtype=np.uint16).astype(np.int64))
    stream = np.random.default_rng(0).permutation(np.arange(0, len(val) - L - 1, L))

    @torch.no_grad()
    def run(policy, batches, layers=None):
        policy.rows = []
        for l, b in enumerate(model.blocks):
            b.mlp.hook = policy if layers is None or l in layers else None
        losses = []
        for starts in batches:
            i = torch.as_tensor(starts)[:, None] + torch.arange(L + 1)
            b = val[i]
            with torch.autocast("cpu", torch.bfloat16):
                z = model(b[:, :-1])
            losses.append(F.cross_entropy(z.float().view(-1, c.vocab), b[:, 1:].reshape(-1)).item())
        r = np.array(policy.rows).reshape(len(batches), -1, 8)
        return np.array(losses), r

    mixed = [stream[j * a.rows : (j + 1) * a.rows] for j in range(a.batches)]
    base, rows0 = run(Policy("none", math.inf), mixed)
    out = {
        "model": a.model.name,
        "batches": a.batches,
        "tokens": a.batches * a.rows * L,
        "bytes_per_token": bpt,
        "cells": [],
    }

    def cell(group, policy, batches=mixed, ref=None, layers=None):
        t = time.time()
        loss, r = run(policy, batches, layers)
        ref = base if ref is None else ref
        d = loss - ref
        m = r.mean((0, 1))
        rec = {
            "group": group,
            "policy": policy.name,
            "gamma": policy.gamma if not math.isinf(policy.gamma) else "inf",
            "renorm": policy.renorm,
            "m": policy.m,
            "rho": policy.rho,
            "key": policy.key,
            "domain": policy.domain,
            "tau": policy.tau,
            "loss": float(loss.mean()),
            "bpb": float(loss.mean() / math.log(2) / bpt),
            "delta": float(d.mean()),
            "delta_se": float(d.std(ddof=1) / math.sqrt(len(d))),
            "drop": m[0],
            "rerouted": m[1],
            "max_mean": m[2],
            "max_nbar": m[3],
            "dev_max_mean": m[4],
            "zero_expert": m[5],
            "mass": m[6],
            "min_mean": m[7],
            "worst_max_mean": float(r[..., 2].max()),
            "seconds": time.time() - t,
        }
        out["cells"].append(rec)
        print(
            f"{group:10s} {policy.name:8s} g={policy.gamma:<5} m={policy.m} rho={policy.rho} ren={policy.renorm} key={policy.key} dom={policy.domain} tau={policy.tau} "
            f"loss {rec['loss']:.4f} d {rec['delta']:+.4f}+-{rec['delta_se']:.4f} drop {m[0]:.4f} rer {m[1]:.4f} max/mean {m[2]:.3f} dev {m[4]:.3f} zero {m[5]:.4f} mass {m[6]:.4f}",
            flush=True,
        )
        json.dump(out, open(a.out, "w"), indent=1)

    # unbounded load distribution
    out["baseline"] = {
        "loss": float(base.mean()),
        "bpb": float(base.mean() / math.log(2) / bpt),
        "layer_max_mean": rows0[..., 2].mean(0).tolist(),
        "layer_max_mean_worst": rows0[..., 2].max(0).tolist(),
        "layer_min_mean": rows0[..., 7].mean(0).tolist(),
        "layer_dev_max_mean": rows0[..., 4].mean(0).tolist(),
    }
    print(json.dumps(out["baseline"]), flush=True)
    if a.only == "eager":
        for g, tau in ((1.25, 0.95), (math.inf, 0.95), (math.inf, 0.9), (math.inf, 0.8), (1.0, 0.95), (1.0, 0.9)):
            cell("eager", Policy("eager", g, tau=tau))
        return
    if a.only == "layers":  # which layer is sensitive: bound one layer only, or all but the first
        for l in range(c.layers):
            for name in ("arrival", "score"):
                cell(f"layer {l} only", Policy(name, 1.0), layers={l})
        for g in (0.5, 0.75, 1.0):
            cell("rank first", Policy("score", g, key="rank"))
            cell("rank first", Policy("score", g, key="rank", m=4))
            cell("rank first", Policy("device", g, key="rank"))
            if g < 1:
                cell("global", Policy("global", g))
                cell("global", Policy("global", g, key="share"))
        for g in (0.75, 1.0, 1.25):
            for name in ("arrival", "random", "score"):
                cell("layers 1 to last", Policy(name, g), layers=set(range(1, c.layers)))
        return
    G = (1.0, 0.75, 1.25, 0.5, 1.5, 2.0)  # the most telling first
    cell("main", Policy("none", math.inf))
    for g in G:
        for name, m in (("arrival", 0), ("random", 0), ("score", 0), ("score", 4), ("device", 0)):
            cell("main", Policy(name, g, m=m))
    cell("top1", Policy("top1", math.inf))
    cell("top1", Policy("top1", math.inf, renorm=True))
    for g in (0.5, 0.75, 1.0, 1.25):
        for name, m in (("arrival", 0), ("score", 0), ("score", 4), ("device", 0)):
            cell("renorm", Policy(name, g, renorm=True, m=m))
    for g in (0.75, 1.0):
        cell("rho", Policy("score", g, m=4, rho=0.5))
        cell("rho", Policy("score", g, m=14))
        cell("devrer", Policy("device", g, m=4))
        for key in ("logit", "cosine", "share") if c.gate == "learned" else ("prob", "share"):
            cell("key", Policy("score", g, key=key))
    for g in (1.0, 1.25, 1.5, 2.0):
        cell("request", Policy("score", g, domain="request"))
    cell("request", Policy("arrival", 1.0, domain="request"))
    # batches of one source only
    for src, (lo, hi) in meta["val"]["ranges"].items():
        st = np.arange(lo, hi - L - 1, L)
        st = np.random.default_rng(1).permutation(st)
        pure = [st[j * a.rows : (j + 1) * a.rows] for j in range(min(6, len(st) // a.rows))]
        ref, _ = run(Policy("none", math.inf), pure)
        for pol in (
            Policy("none", math.inf),
            Policy("arrival", 1.0),
            Policy("score", 1.0),
            Policy("score", 1.0, m=4),
            Policy("device", 1.0),
        ):
            cell("pure:" + src, pol, pure, ref)


if __name__ == "__main__":
    main()
