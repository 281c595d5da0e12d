"""R2 and R4 to R7: what the gate says of a token. See oracle.py."""
import math
from dataclasses import dataclass, field

import numpy as np

from route_cases import F, Invalid, number


def ceil_near(x):
    if math.isinf(x):
        return x
    nearest = round(x)
    return nearest if abs(x - nearest) <= 1e-9 * max(1, abs(x)) else math.ceil(x)


@dataclass
class Row:
    """What the gate says of a token."""
    failed: bool = False
    ranking: list = field(default_factory=list)  # true experts, best first; the chosen ones first
    chosen: int = 0
    P: dict = field(default_factory=dict)
    a: dict = field(default_factory=dict)
    g: dict = field(default_factory=dict)


def softmax(z):
    e = np.exp(z.astype(np.float64) - z.max())
    return (e / e.sum()).astype(F)


def by_value(values, ids):
    return sorted(ids, key=lambda i: (-float(values[i]), i))


def sparsemixer(z, k, jitter):
    left, out = list(range(len(z))), []
    for _ in range(k):
        best = by_value(z, left)[0]
        m = float(z[best])
        with np.errstate(invalid="ignore"):  # 0 / 0: not beyond the margin
            near = [j for j in left if not (z[best] - z[j]) / max(abs(z[j]), z[best]) > 2 * jitter]
        out.append((best, F(1 / sum(math.exp(float(z[j]) - m) for j in near))))
        left.remove(best)
    return out


def gate_row(s, case, numbers, attributes):
    n, nulls, k = int(s.real("experts", 0)), int(s.real("null", 0)), int(s.real("top_k", 0))
    wide = n + nulls
    source, score = s.word("input", "given"), s.word("score", "given")
    select, affinity = s.word("select", "gate"), s.word("affinity", "gate")
    x = np.array(numbers, F)
    cosine = attributes.get("cosine")
    cosine = None if cosine in (None, "off") else np.array([number(w) for w in cosine.split(",")], F)
    z = None
    grap = s.word("gate_rows", None) == "grap"
    if source == "hidden":
        d = len(x)
        if grap:
            if d == 0 or d % wide:
                raise Invalid("grap")
            w = np.zeros((wide, d))
            for i in range(wide):
                w[i, i * d // wide:(i + 1) * d // wide] = wide / d
        else:
            if len(case.gate_rows) != wide or any(len(r) != d for r in case.gate_rows):
                raise Invalid("gate rows")
            w = np.array(case.gate_rows, np.float64)
            if not np.isfinite(w).all():
                raise Invalid("gate rows")
        with np.errstate(all="ignore"):
            z = (w @ x.astype(np.float64)).astype(F)
            if cosine is None and "cosine" in (select, affinity):
                lengths = np.sqrt((w * w).sum(axis=1))
                dots = w @ x.astype(np.float64)
                length = math.sqrt(float(x.astype(np.float64) @ x.astype(np.float64))) + 1e-9
                cosine = np.array([0 if lw == 0 and math.isfinite(dot) else dot / (length * lw)
                                   for dot, lw in zip(dots, lengths)], F)
                if not np.isfinite(F(x.astype(np.float64) @ x.astype(np.float64))):
                    cosine[:] = np.nan
    elif len(x) != wide:
        raise Invalid("width")
    elif source == "logits":
        z = x.copy()
    if (select == "cosine" or affinity == "cosine") and cosine is None:
        raise Invalid("cosine")
    if cosine is not None and len(cosine) != wide:
        raise Invalid("cosine")
    bias, gate_bias = s.reals("bias"), s.reals("gate_bias")
    for values in (bias, gate_bias):
        if values is not None and (len(values) != wide or not np.isfinite(values).all()):
            raise Invalid("bias")
    if z is not None and gate_bias is not None:
        z = z + np.array(gate_bias, F)
    if not (np.isfinite(x).all() and (z is None or np.isfinite(z).all()) and
            (cosine is None or np.isfinite(cosine).all())):
        return Row(failed=True)
    if score == "locmoe" and z is not None:
        z = np.maximum(z, F(0))

    if score == "sparsemixer":
        chosen = sparsemixer(z, k, s.real("jitter", 0.01))
        row = Row(ranking=[i for i, _ in chosen], chosen=len(chosen), P=dict(chosen))
        row.g = dict(row.P)
    else:
        P = x.copy() if z is None else None
        if z is not None and score in ("softmax", "locmoe"):
            P = softmax(z)
        if z is not None and score == "sigmoid":
            P = (1 / (1 + np.exp(-z.astype(np.float64)))).astype(F)
        if select == "cosine":
            value = cosine
        elif z is not None and bias is None and score != "sigmoid":
            value = z
        else:
            value = P if bias is None else P + np.array(bias, F)
        order = by_value(value, open_experts(s, value, n, wide, k))
        if P is None:  # softmax of the chosen
            top = z[order[:k]].astype(np.float64)
            P = np.exp(z.astype(np.float64) - (top.max() + math.log(np.exp(top - top.max()).sum()))).astype(F)
        row = Row(ranking=[i for i in order if i < n], chosen=sum(i < n for i in order[:k]),
                  P={i: P[i] for i in range(n)})
        divisor = sum((float(P[i]) for i in row.ranking[:row.chosen]), 0.0)
        scale = F(s.real("scale", 1))
        for i in range(n):
            if s.on("renorm"):
                row.g[i] = F(0) if divisor == 0 else F(float(P[i]) / (divisor + 1e-20)) * scale
            else:
                row.g[i] = P[i] * scale
    total = sum((float(row.P[i]) for i in row.ranking[:row.chosen]), 0.0)
    for i in row.P:
        row.a[i] = {"gate": row.P[i], "share": F(float(row.P[i]) / (total + 1e-20)),
                    "cosine": None if cosine is None else cosine[i]}[affinity]
    return row


def open_experts(s, value, n, wide, k):
    groups, limit = int(s.real("groups", 1)), int(s.real("topk_group", 1))
    if groups == 1:
        return range(wide)
    size = n // groups
    scores = []
    for group in range(groups):
        best = sorted((F(v) for v in value[group * size:(group + 1) * size]), reverse=True)
        scores.append(best[0] + best[1] if s.word("group_score", "max") == "top2" else best[0])
    opened = by_value(scores, range(groups))[:limit]
    return [i for i in range(n) if i // size in opened]

def check(s, case):
    n, nulls, k = int(s.real("experts", 0)), int(s.real("null", 0)), int(s.real("top_k", 0))
    score, source = s.word("score", "given"), s.word("input", "given")
    groups, limit = int(s.real("groups", 1)), int(s.real("topk_group", 1))

    def want(condition, what):
        if not condition:
            raise Invalid(what)

    want(n >= 1 and 1 <= k <= n + nulls, "top_k")
    want(score != "given" or source == "given", "score given")
    want(score != "sparsemixer" or source != "given", "sparsemixer needs logits")
    if (groups, limit) != (1, 1):
        want(groups >= 1 and n % groups == 0 and 1 <= limit <= groups, "groups")
        want(limit * (n // groups) >= k, "open groups")
        want(s.word("group_score", "max") == "max" or n // groups >= 2, "top2 of one")
    for name in ("gamma", "gamma_dev", "choice_factor"):
        value = s.real(name, None)
        want(value is None or value > 0, name)
    for name in ("zeta", "rho", "nbar_min", "t_min", "reroute", "jitter", "capacity"):
        value = s.real(name, None)
        want(value is None or value >= 0, name)
    want(s.real("tile", 1) >= 1, "tile")
    want(s.real("r_max", 2) >= 1, "r_max")
    eps, tau = s.real("eps", None), s.real("tau", None)
    want(eps is None or 0 < eps <= 1, "eps")
    want(tau is None or 0 <= tau <= 1, "tau")
    d_eff, delta = s.real("d_eff", None), s.real("delta", None)
    want((d_eff is None) == (delta is None), "theory")
    want(d_eff is None or (d_eff > 0 and 0 <= delta <= 1), "theory")
