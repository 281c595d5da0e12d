#!/usr/bin/env python3
"""A second reading of docs/routing.md, in numpy: decides the cases of route files and checks what they expect.

Written from the numbered rules alone, in loops that follow their words, so that it and the engine can be wrong
together only where the rules are.

  oracle.py FILE...     exit 1 on a mismatch, 2 on a file it cannot read
"""
import math
import sys
from dataclasses import dataclass, field

import numpy as np

from oracle_gate import ceil_near, check, gate_row
from oracle_pool import Pool
from route_cases import F, INF, Invalid, Malformed, Settings, read_cases, same


@dataclass
class Pair:
    t: int
    slot: int
    chosen: int
    expert: int
    device: int = -1
    fate: str = "kept"
    weight: float = 0
    position: int = 0


@dataclass
class Bounds:
    domain: int = 0
    rank: int = 0
    C: list = None
    floor: list = None
    B: list = None
    pressed: set = field(default_factory=set)
    device_pressure: list = None


class Decision:
    def __init__(self, case):
        self.case = case
        self.s = s = Settings(case.settings)
        check(s, case)
        self.n, self.k, self.R = int(s.real("experts")), int(s.real("top_k")), int(s.real("devices", 1))
        self.read_placement()
        self.read_tokens()
        self.evicted, self.covered, self.overrides, self.bounds = [], [], [], []
        self.held_e = [0] * self.n  # pairs placed by earlier pools, which rows must hold
        self.held_d = [0] * self.R
        self.held_rank_e, self.held_rank_d = {}, {}
        self.pairs = {t: self.pairs_of(t) for t in self.alive}
        self.decide()

    def read_placement(self):
        s = self.s
        if "place" in s.words and s.words["place"] != "off":
            self.copies = [sorted(int(d) for d in e.split("+")) for e in s.words["place"].split(",")]
        else:
            self.copies = [[i * self.R // self.n] for i in range(self.n)]
        v = s.reals("throughput")
        self.v = v if v is not None else [1.0] * self.R
        if any(not (math.isfinite(x) and x > 0) for x in self.v):
            raise Invalid("throughput")
        spread = lambda name, count: [INF] * count if s.reals(name) is None else (
            s.reals(name) * (count if len(s.reals(name)) == 1 else 1))
        self.hw, self.rows = spread("hw", self.n), spread("rows", self.R)
        if any(r < 0 for r in self.hw + self.rows):
            raise Invalid("rows")
        c = s.reals("thresholds")
        self.thresholds = None if c is None else [F(x) for x in (c * self.n if len(c) == 1 else c)]
        if self.thresholds is not None and (len(self.thresholds) != self.n or np.isnan(self.thresholds).any()):
            raise Invalid("thresholds")
        self.ranks = int(s.real("ranks", 1))

    def read_tokens(self):
        self.tokens, self.row = [], []
        for t, (numbers, words) in enumerate(self.case.tokens):
            word = lambda name, default: int(float(words.get(name, default)))
            token = {"key": int(words.get("key", t)), "position": word("position", t),
                     "request": word("request", 0), "domain": word("domain", 0), "home": word("home", 0),
                     "rank": word("rank", 0), "pad": words.get("pad", "off") == "on",
                     "mode": words.get("mode", self.s.word("mode", "shared"))}
            self.tokens.append(token)
            self.row.append(None if token["pad"] else gate_row(self.s, self.case, numbers, words))
        failed = {tok["request"] for tok, row in zip(self.tokens, self.row) if row is not None and row.failed}
        self.failed = [t for t, tok in enumerate(self.tokens) if not tok["pad"] and tok["request"] in failed]
        self.alive = [t for t, tok in enumerate(self.tokens) if not tok["pad"] and t not in self.failed]
        for t in self.alive:
            tok = self.tokens[t]
            if tok["mode"] == "threshold" and self.thresholds is None:
                raise Invalid("thresholds")
            if tok["mode"].startswith("block"):
                if not (self.s.real("block", 0) or 0) > 0:
                    raise Invalid("block")
                if self.s.real("gamma", None) is None and self.s.real("capacity", None) is None:
                    pass  # no factor: no bound
            if not 0 <= tok["home"] < self.R or not 0 <= tok["rank"] < self.ranks:
                raise Invalid("home, rank")

    def pairs_of(self, t):
        row = self.row[t]
        return [Pair(t, slot, i, i) for slot, i in enumerate(row.ranking[:row.chosen])]

    # R8
    def key(self, t, i, slot, in_block):
        order, tier = self.s.word("order", "score"), self.s.word("tier", "off")
        row = self.row[t]
        first = {"off": 0, "first": 0 if row.ranking[:row.chosen] and i == row.ranking[0] and row.chosen else 1,
                 "rank": slot}[tier]
        value = {"score": -float(row.a[i]), "arrival": t, "reverse": -t, "random": 0}[order]
        return (first, value, self.tokens[t]["position"] if in_block else self.tokens[t]["key"], i, t)

    def key_of(self, p, in_block):
        return self.key(p.t, p.expert, p.slot if p.expert == p.chosen else self.k, in_block)

    def decide(self):
        tokens, mode = self.tokens, lambda t: self.tokens[t]["mode"]
        free = [t for t in self.alive if mode(t) in ("exact", "threshold")]
        for t in free:
            for p in self.pairs[t]:
                if mode(t) == "threshold" and p.slot > 0 and self.row[t].a[p.chosen] < self.thresholds[p.chosen]:
                    p.fate = "dropped"
        none = Pool(self, free, [INF] * self.n, [0] * self.n, [INF] * self.R)
        none.copies([p for t in free for p in self.pairs[t] if p.fate != "dropped"])
        blocks = {}
        size = int(self.s.real("block", 0) or 0)
        for t in self.alive:
            if mode(t).startswith("block"):
                tok = tokens[t]
                blocks.setdefault((tok["request"], tok["position"] // size, mode(t)), []).append(t)
        self.block_bounds = []
        for key in sorted(blocks):
            self.decide_block(blocks[key], size)
        self.weigh([t for t in self.alive if mode(t) != "shared"])
        self.hold([t for t in self.alive if mode(t) != "shared"])
        domains = sorted({tokens[t]["domain"] for t in self.alive if mode(t) == "shared"})
        for domain in domains:
            members = [t for t in self.alive if mode(t) == "shared" and tokens[t]["domain"] == domain]
            if self.s.on("rank_local"):
                for rank in range(self.ranks):
                    own = [t for t in members if tokens[t]["rank"] == rank]
                    if own:
                        self.decide_domain(own, domain, rank, members)
            else:
                self.decide_domain(members, domain, 0, members)

    def hold(self, members):
        for t in members:
            for p in self.pairs[t]:
                if p.fate != "dropped":
                    self.held_e[p.expert] += 1
                    self.held_d[p.device] += 1
                    rank = self.tokens[t]["rank"]
                    self.held_rank_e[rank, p.expert] = self.held_rank_e.get((rank, p.expert), 0) + 1
                    self.held_rank_d[rank, p.device] = self.held_rank_d.get((rank, p.device), 0) + 1

    def fixed_capacity(self):
        return self.s.real("capacity", None)

    def decide_block(self, members, size):
        s = self.s
        capacity, gamma = self.fixed_capacity(), s.real("gamma", None)
        if capacity is None:
            capacity = INF if gamma is None else ceil_near(gamma * size * self.k / self.n)
        pool = Pool(self, members, [capacity] * self.n, [0] * self.n, [INF] * self.R, in_block=True)
        self.block_bounds.append(Bounds(C=[capacity] * self.n, floor=[0] * self.n, B=[INF] * self.R,
                                        device_pressure=[0] * self.R))
        if self.tokens[members[0]]["mode"] == "block":
            pool.expert_choice()
            pool.reroute()
            pool.cover()
        else:
            pool.causal()

    def decide_domain(self, members, domain, rank, whole):
        s, n = self.s, self.n
        if s.word("policy", "token_choice") == "expert_choice":
            self.experts_choose(members)
        A = sum(len(self.pairs[t]) for t in members)
        T, whole_A, whole_T = len(members), sum(len(self.pairs[t]) for t in whole), len(whole)
        local = s.on("rank_local")
        ceiling = self.ceiling(A, T, whole_A, whole_T, local)
        if local:
            hw = [max(0, math.floor(x / self.ranks) - self.held_rank_e.get((rank, i), 0)) if x < INF else INF
                  for i, x in enumerate(self.hw)]
            rows = [max(0, math.floor(x / self.ranks) - self.held_rank_d.get((rank, d), 0)) if x < INF else INF
                    for d, x in enumerate(self.rows)]
        else:
            hw = [max(0, x - held) for x, held in zip(self.hw, self.held_e)]
            rows = [max(0, x - held) for x, held in zip(self.rows, self.held_d)]
        floor = [self.floor(i, members, ceiling, T) for i in range(n)]
        if s.on("eager") and ceiling < INF:
            C = [min(ceiling, hw[i], max(floor[i], 1)) for i in range(n)]
        else:
            C = [min(ceiling, hw[i]) for i in range(n)]
        hosts = {d for copies in self.copies for d in copies}
        gamma_dev = s.real("gamma_dev", None)
        B = []
        for d in range(self.R):
            if gamma_dev is None or math.isinf(gamma_dev) or d not in hosts:
                B.append(rows[d])
            else:
                B.append(min(ceil_near(gamma_dev * A * self.v[d] / sum(self.v[h] for h in sorted(hosts))), rows[d]))
        bounds = Bounds(domain, rank, C, floor, B, device_pressure=[0] * self.R)
        for i in range(n):
            if min(floor[i], sum(p.chosen == i for t in members for p in self.pairs[t])) > C[i]:
                bounds.pressed.add(i)
        self.bounds.append(bounds)
        pool = Pool(self, members, C, floor, B, hw, rows)
        pool.expert_choice()
        pool.trim(bounds.device_pressure)
        pool.reroute()
        pool.cover()
        self.weigh(members)
        self.hold(members)

    # R9
    def ceiling(self, A, T, whole_A, whole_T, local):
        s, n = self.s, self.n
        if self.fixed_capacity() is not None:
            return self.fixed_capacity()
        gamma = s.real("gamma", None)
        if gamma is None or math.isinf(gamma):
            return INF
        if whole_T < (s.real("t_min", 0) or 0) or whole_A < (s.real("nbar_min", 4) or 0) * n:
            return INF
        up = ceil_near(gamma * A / n)
        if local:
            return up
        zeta, tile = s.real("zeta", None), int(s.real("tile", 1) or 1)
        if zeta is not None:
            up = max(up, ceil_near(A / n + zeta * math.sqrt(A / n)))
        return -(-up // tile) * tile

    # R10
    def floor(self, i, members, ceiling, T):
        s, floors = self.s, [0]
        eps, tau, d_eff, delta = (s.real(name, None) for name in ("eps", "tau", "d_eff", "delta"))
        if eps is not None:
            floors.append(ceil_near(16 / 3 * math.log(1 / eps)))
        if tau is not None:
            values = sorted((max(0.0, float(self.row[p.t].a[i])) for t in members for p in self.pairs[t]
                             if p.chosen == i), reverse=True)
            total = 0.0
            for v in values:
                total += v
            count, prefix = 0, 0.0
            if total > 0:
                while prefix < (tau - 1e-6) * total:
                    prefix += values[count]
                    count += 1
            floors.append(count)
        if d_eff is not None:
            L = d_eff * delta * delta / (2 - delta * delta) - math.log(self.n)
            M = T if math.isinf(ceiling) else ceiling
            if M == 0:
                floors.append(0)
            elif L >= math.log(M):
                floors.append(M)
            else:
                floors.append(min(M, max(1, ceil_near(math.exp(L)))))
        return max(floors)

    def experts_choose(self, members):
        C = min(len(members), ceil_near(self.s.real("choice_factor", 2) * len(members) / self.n))
        taken = {t: [] for t in members}
        for i in range(self.n):
            ranked = [t for t in members if i in self.row[t].ranking]
            for t in sorted(ranked, key=lambda t: self.key(t, i, 0, False))[:C]:
                taken[t].append(i)
        for t in members:
            order = sorted(taken[t], key=lambda i: (-float(self.row[t].a[i]), i))
            self.pairs[t] = [Pair(t, slot, i, i) for slot, i in enumerate(order)]

    # R16
    def weigh(self, members):
        s = self.s
        family = s.on("renorm") or s.word("score", "given") == "topk_softmax"
        renormalises = {"family": family, "renorm": True, "leave": False}[s.word("after_drop", "family")]
        r_max = F(s.real("r_max", 2))
        for t in members:
            g, pairs_t = self.row[t].g, self.pairs[t]
            alive = [p for p in pairs_t if p.fate != "dropped"]
            factor = F(1)
            if renormalises and any(p.fate != "kept" for p in pairs_t):
                W, S = F(0), F(0)
                for p in pairs_t:
                    W = W + g[p.chosen]
                for p in alive:
                    S = S + g[p.expert]
                factor = F(1) if S == 0 else min(W / S, r_max)
            for p in alive:
                p.weight = g[p.expert] if factor == 1 else g[p.expert] * factor


def count_text(value):
    return "off" if math.isinf(value) else str(int(value))


def describe(d):
    """label -> (items, how): how is set, list, counts or reals."""
    pairs_all = [p for t in sorted(d.pairs) for p in d.pairs[t]]
    alive = [p for p in pairs_all if p.fate != "dropped"]
    chosen = lambda p: f"({p.t},e{p.chosen})"
    out = {}
    for i in range(d.n):
        out[f"e{i}"] = ([str(p.t) for p in alive if p.fate == "kept" and p.expert == i], "set")
    for device in range(d.R):
        out[f"d{device}"] = ([f"({p.t},e{p.expert})" for p in alive if p.device == device], "set")
    out["rerouted"] = ([f"({p.t},e{p.chosen}>e{p.expert})" for p in alive if p.fate == "rerouted"], "set")
    out["dropped"] = ([chosen(p) for p in pairs_all if p.fate == "dropped"], "set")
    for name in ("evicted", "covered", "overrides"):
        out[name] = ([chosen(p) for p in getattr(d, name)], "list")
    out["bare"] = ([str(t) for t in sorted(d.pairs) if d.pairs[t] and all(p.fate == "dropped" for p in d.pairs[t])],
                   "set")
    out["failed"] = ([str(t) for t in d.failed], "set")
    none = Bounds(C=[INF] * d.n, floor=[0] * d.n, B=[INF] * d.R)
    first = (d.bounds or d.block_bounds or [none])[0]
    for name in ("C", "floor", "B"):
        out[name] = ([count_text(v) for v in getattr(first, name)], "counts")
        for bounds in d.bounds:
            out[f"{name}[{bounds.domain},{bounds.rank}]"] = ([count_text(v) for v in getattr(bounds, name)], "counts")
    out["load"] = ([str(sum(p.expert == i for p in alive)) for i in range(d.n)], "counts")
    out["device_load"] = ([str(sum(p.device == x for p in alive)) for x in range(d.R)], "counts")
    out["device_pressure"] = ([str(sum(b.device_pressure[x] for b in d.bounds)) for x in range(d.R)], "counts")
    out["pressure"] = ([f"e{i}" for i in range(d.n) if any(i in b.pressed for b in d.bounds)], "set")
    for t in range(len(d.tokens)):
        out[f"w{t}"] = ([f"e{p.expert}={float(p.weight):.9g}" for p in d.pairs.get(t, []) if p.fate != "dropped"],
                        "reals")
    mass = sum(float(d.row[p.t].P[p.chosen]) for p in pairs_all)
    kept = sum(float(d.row[p.t].P[p.expert]) for p in alive)
    out["mass"] = ([f"{kept:.9g}", f"{mass:.9g}"], "reals")
    return out


def differences(case):
    try:
        decision = Decision(case)
    except Invalid as error:
        return [] if case.expects_invalid else [f"invalid: {error}"]
    if case.expects_invalid:
        return ["decided, expected invalid"]
    labels, out = describe(decision), []
    for label, items, line in case.expectations:
        items = [] if items == ["-"] else items
        if label not in labels:
            out.append(f"line {line}: nothing to expect of {label}")
        elif not same(labels[label][0], items, labels[label][1]):
            out.append(f"line {line}: {label}: got {' '.join(labels[label][0]) or '-'}, expected {' '.join(items)}")
    return out


def main(paths):
    num_cases = num_wrong = 0
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                cases = read_cases(file.read(), path)
        except (Malformed, IndexError, StopIteration) as error:
            print(f"{path}: {error}")
            return 2
        for case in cases:
            num_cases += 1
            found = differences(case)
            num_wrong += bool(found)
            for line in found:
                print(f"{path}: {case.name}: {line}")
    print(f"{num_cases} cases, {num_wrong} of them differ")
    return 1 if num_wrong or not num_cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
