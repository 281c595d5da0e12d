#!/usr/bin/env python3
"""The worked example of the routing notes and conservation checks, for curve.Policy."""

import torch, math, curve
from model import Config

P = torch.tensor(
    [
        [0.50, 0.30, 0.15, 0.05],
        [0.45, 0.35, 0.12, 0.08],
        [0.60, 0.10, 0.20, 0.10],
        [0.40, 0.25, 0.05, 0.30],
        [0.55, 0.32, 0.08, 0.05],
        [0.35, 0.33, 0.22, 0.10],
    ]
)


def go(pol, p, k=2):
    top, idx = p.topk(k, -1)
    return pol(None, None, p.log(), p, idx, top / top.sum(-1, keepdim=True))


curve.c = Config(n=4, k=2)
t, e, w = go(curve.Policy("score", 1.0), P)
assert sorted(zip(t.tolist(), e.tolist())) == sorted([(0, 0), (2, 0), (4, 0), (1, 1), (4, 1), (5, 1), (2, 2), (3, 3)])
t, e, w = go(curve.Policy("score", 1.0, m=2), P)
assert set(zip(t.tolist(), e.tolist())) >= {(1, 2), (3, 2), (5, 3), (0, 3)} and len(t) == 12
assert torch.bincount(e).tolist() == [3, 3, 3, 3] and abs(P[t, e].sum() - 3.47) < 1e-5
t, e, w = go(curve.Policy("score", 5 / 3, m=2), P)
assert (5, 2) in set(zip(t.tolist(), e.tolist())) and abs(P[t, e].sum() - 4.52) < 1e-5
t, e, w = go(curve.Policy("arrival", 1.0), P)
assert sorted(t[e == 0].tolist()) == [0, 1, 2]
curve.c = Config(n=16, k=2)
g = torch.Generator().manual_seed(0)
for _ in range(20):
    p = (torch.randn(512, 16, generator=g) + torch.randn(16, generator=g)).softmax(-1)
    for name, m in (("arrival", 0), ("random", 0), ("score", 0), ("score", 4), ("device", 0), ("device", 4)):
        for gam in (0.5, 1.0, 1.5):
            pol = curve.Policy(name, gam, m=m)
            t, e, w = go(pol, p)
            assert len(set(zip(t.tolist(), e.tolist()))) == len(t)
            load = torch.bincount(e, minlength=16)
            if name == "device":
                assert load.view(4, 4).sum(1).max() <= math.ceil(gam * 512 * 2 / 4)
            else:
                assert load.max() <= math.ceil(gam * 512 * 2 / 16)
            drop = pol.rows[-1][0]
            assert abs(len(t) + drop * 1024 - 1024) < 1e-3
print("policy tests pass")
