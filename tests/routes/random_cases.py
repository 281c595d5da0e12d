#!/usr/bin/env python3
"""Route cases with all that oracle.py expects of them, from a seed.

  random_cases.py TOPIC COUNT SEED      a route file on standard output: COUNT cases of one topic
  random_cases.py --write               writes tests/routes/TOPIC.route for every topic, as checked in
  random_cases.py --against LAB COUNT SEED
                                        COUNT cases of random topics, decided by oracle.py and by the program LAB
"""
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import oracle
import route_cases

HERE = Path(__file__).parent


def shape(r, n=(2, 8), k=3, tokens=(1, 12)):
    n = r.randint(*n)
    return {"experts": n, "top_k": r.randint(1, min(k, n))}, r.randint(*tokens)


def listed(values):
    return ",".join(str(v) for v in values)


def real(r, low, high, digits=2):
    return round(r.uniform(low, high), digits)


def maybe(r, settings, share=0.5, **more):
    """Each of `more` with the given probability."""
    for name, value in more.items():
        if r.random() < share:
            settings[name] = value


def deciding(r, settings):
    maybe(r, settings, reroute=r.randint(1, 5), coverage="off", renorm="on", r_max=real(r, 1, 3, 1),
          after_drop=r.choice(["family", "renorm", "leave"]))
    maybe(r, settings, rho=r.choice([0, 0.25, 0.5, 0.9, 1, "inf", "off"]))


def devices(r, settings, copies=0.3):
    n, count = settings["experts"], r.randint(2, 4)
    settings["devices"] = count
    if r.random() < 0.6:
        settings["place"] = listed("+".join(str(d) for d in sorted(r.sample(range(count), 2 if r.random() < copies
                                                                            else 1))) for _ in range(n))
    return {"home": lambda: r.randrange(count)}


def ceilings(r):
    s, tokens = shape(r)
    s["gamma"] = real(r, 0.2, 2)
    s["nbar_min"] = r.choice([0, 0, 0.5, 1, 4])
    maybe(r, s, 0.4, zeta=real(r, 0, 2, 1), tile=r.randint(1, 4), t_min=r.randint(1, 8))
    deciding(r, s)
    return s, tokens, {}


def fixed_capacity(r):
    s, tokens = shape(r)
    s["capacity"] = r.choice([0, 1, 1, 2, 3, "inf", "off"])
    deciding(r, s)
    return s, tokens, {}


def floors(r):
    s, tokens = shape(r, tokens=(4, 14))
    s["gamma"], s["nbar_min"] = real(r, 0.3, 1.5), 0
    maybe(r, s, 0.6, tau=real(r, 0, 1), eps=r.choice([1, 0.9, 0.5, 0.2]), eager="on")
    if r.random() < 0.5:
        s["d_eff"], s["delta"] = real(r, 1, 60, 0), real(r, 0, 0.6)
    attributes = devices(r, s) if r.random() < 0.6 else {}
    if attributes:
        s["gamma_dev"] = real(r, 0.3, 1.3)
    deciding(r, s)
    return s, tokens, attributes


def budgets(r):
    s, tokens = shape(r, tokens=(3, 14))
    attributes = devices(r, s)
    s["gamma_dev"] = r.choice([real(r, 0.2, 1.5), real(r, 0.2, 1.5), 1, "inf", "off"])
    maybe(r, s, 0.4, throughput=listed(real(r, 0.5, 3, 1) for _ in range(s["devices"])), gamma=real(r, 0.5, 2))
    s["nbar_min"] = 0
    maybe(r, s, 0.4, tau=real(r, 0.2, 1))
    deciding(r, s)
    return s, tokens, attributes


def memory(r):
    s, tokens = shape(r, tokens=(3, 14))
    attributes = devices(r, s)
    s["hw"] = r.choice([r.randint(0, 4), listed(r.randint(0, 6) for _ in range(s["experts"]))])
    maybe(r, s, 0.6, rows=listed(r.randint(1, 9) for _ in range(s["devices"])), gamma_dev=real(r, 0.4, 1.4))
    deciding(r, s)
    if r.random() < 0.4:
        attributes["domain"] = lambda: r.randrange(2)
        attributes["mode"] = lambda: r.choice(["exact", "shared", "shared"])
    return s, tokens, attributes


def copies(r):
    s, tokens = shape(r, n=(1, 4), tokens=(2, 12))
    attributes = devices(r, s, copies=0.9)
    s["gamma"], s["nbar_min"] = real(r, 0.6, 1.5), 0
    maybe(r, s, gamma_dev=real(r, 0.5, 1.5))
    deciding(r, s)
    return s, tokens, attributes


def orders(r):
    s, tokens = shape(r)
    s["capacity"] = r.randint(1, 3)
    s["order"] = r.choice(["score", "arrival", "reverse", "random"])
    s["tier"] = r.choice(["off", "first", "rank"])
    deciding(r, s)
    keys = list(range(100))
    r.shuffle(keys)
    return s, tokens, {"key": keys.pop}


def ties(r):
    s, tokens = shape(r)
    s["gamma"], s["nbar_min"], s["digits"] = real(r, 0.3, 1.2), 0, 1
    deciding(r, s)
    keys = list(range(100))
    r.shuffle(keys)
    return s, tokens, {"key": keys.pop}


def scores(r):
    s, tokens = shape(r, n=(2, 9), k=4)
    s["input"] = "logits"
    s["score"] = r.choice(["softmax", "sigmoid", "topk_softmax", "locmoe"])
    wide = s["experts"]
    if s["score"] != "topk_softmax":
        if r.random() < 0.3:
            s["null"] = r.randint(1, 3)
            wide += s["null"]
        maybe(r, s, 0.4, bias=listed(real(r, -0.5, 0.5) for _ in range(wide)))
    maybe(r, s, 0.3, gate_bias=listed(real(r, -1, 1) for _ in range(wide)), scale=real(r, 0.5, 3, 1))
    s["affinity"] = r.choice(["gate", "share"])
    s["gamma"], s["nbar_min"] = real(r, 0.4, 1.5), 0
    deciding(r, s)
    return s, tokens, {}


def groups(r):
    size, count = r.randint(2, 4), r.randint(2, 4)
    opened = r.randint(1, count)
    s = {"experts": size * count, "top_k": r.randint(1, min(size * opened, 4)), "groups": count,
         "topk_group": opened, "group_score": r.choice(["max", "top2"]), "input": "logits",
         "score": r.choice(["softmax", "sigmoid"])}
    maybe(r, s, 0.6, bias=listed(real(r, -1, 1) for _ in range(size * count)), renorm="on", scale=2.5)
    s["capacity"] = r.randint(1, 4)
    deciding(r, s)
    return s, r.randint(2, 10), {}


def sparsemixer(r):
    s = {"experts": r.randint(2, 8), "top_k": r.randint(1, 2), "input": "logits", "score": "sparsemixer",
         "jitter": r.choice([0.01, 0.1, 0.2]), "capacity": r.randint(1, 4)}
    deciding(r, s)
    return s, r.randint(1, 10), {}


def hidden(r):
    s, tokens = shape(r, n=(2, 5))
    width = s["experts"] * r.randint(1, 3)
    s["input"], s["width"] = "hidden", width
    s["score"] = r.choice(["softmax", "sigmoid", "locmoe", "topk_softmax"])
    if r.random() < 0.5:
        s["gate_rows"] = "grap"
    s["select"] = r.choice(["gate", "cosine"]) if s["score"] != "topk_softmax" else "gate"
    s["affinity"] = r.choice(["gate", "share", "cosine"])
    s["gamma"], s["nbar_min"] = real(r, 0.4, 1.5), 0
    deciding(r, s)
    return s, tokens, {}


def cosines(r):
    s, tokens = shape(r, k=4)
    s["affinity"] = "cosine"
    maybe(r, s, select="cosine")
    s["capacity"] = r.randint(1, 3)
    maybe(r, s, tau=real(r, 0.2, 1))
    deciding(r, s)
    return s, tokens, {"cosine": lambda: listed(real(r, -1, 1) for _ in range(s["experts"]))}


def nulls(r):
    s, tokens = shape(r, k=4)
    s["null"] = r.randint(1, 4)
    s["top_k"] = r.randint(1, min(4, s["experts"] + s["null"]))
    s["capacity"] = r.randint(1, 3)
    s["affinity"] = r.choice(["gate", "share"])
    deciding(r, s)
    return s, tokens, {}


def thresholds(r):
    s, tokens = shape(r, k=4)
    s["mode"] = "threshold"
    s["thresholds"] = r.choice([real(r, 0, 0.5), listed(real(r, 0, 0.5) for _ in range(s["experts"]))])
    s["affinity"] = r.choice(["gate", "share"])
    deciding(r, s)
    return s, tokens, devices(r, s) if r.random() < 0.3 else {}


def in_blocks(r, mode):
    s, tokens = shape(r, tokens=(2, 14))
    s["mode"], s["block"] = mode, r.randint(1, 6)
    s["gamma"] = real(r, 0.2, 1.5)
    maybe(r, s, 0.2, capacity=r.randint(0, 3))
    deciding(r, s)
    attributes = devices(r, s) if r.random() < 0.4 else {}
    attributes["request"] = lambda: r.randrange(2)
    return s, tokens, attributes


def blocks(r):
    return in_blocks(r, "block")


def causal_blocks(r):
    return in_blocks(r, "block_causal")


def modes(r):
    s, tokens = shape(r, tokens=(4, 16))
    s["gamma"], s["nbar_min"], s["block"] = real(r, 0.3, 1.2), 0, r.randint(2, 5)
    s["thresholds"] = real(r, 0, 0.4)
    maybe(r, s, 0.5, hw=r.randint(2, 8))
    deciding(r, s)
    attributes = devices(r, s)
    maybe(r, s, 0.5, gamma_dev=real(r, 0.5, 1.3))
    attributes.update(mode=lambda: r.choice(["exact", "threshold", "block", "block_causal", "shared", "shared"]),
                      request=lambda: r.randrange(3), domain=lambda: r.randrange(2))
    return s, tokens, attributes


def ranks(r):
    s, tokens = shape(r, tokens=(4, 16))
    s["ranks"] = r.randint(1, 3)
    s["rank_local"] = r.choice(["on", "on", "off"])
    s["gamma"], s["nbar_min"] = real(r, 0.3, 1.5), r.choice([0, 1])
    maybe(r, s, 0.4, zeta=1, tile=2, hw=r.randint(1, 9), tau=real(r, 0.2, 1), eager="on")
    attributes = devices(r, s)
    maybe(r, s, 0.5, gamma_dev=real(r, 0.5, 1.5), rows=r.randint(2, 12))
    deciding(r, s)
    attributes.update(rank=lambda: r.randrange(s["ranks"]), domain=lambda: r.randrange(2))
    return s, tokens, attributes


def failures(r):
    s, tokens = shape(r)
    s["gamma"], s["nbar_min"], s["faulty"] = real(r, 0.4, 1.2), 0, 0.1
    if r.random() < 0.5:
        s["input"], s["score"] = "logits", r.choice(["softmax", "sigmoid"])
    deciding(r, s)
    return s, tokens, {"request": lambda: r.randrange(4), "pad": lambda: r.choice(["on", "off", "off", "off"])}


def expert_choice(r):
    s, tokens = shape(r)
    s["policy"], s["choice_factor"] = "expert_choice", real(r, 0.3, 3, 1)
    s["coverage"] = "off"
    maybe(r, s, renorm="on")
    return s, tokens, {}


TOPICS = {topic.__name__: topic for topic in (
    ceilings, fixed_capacity, floors, budgets, memory, copies, orders, ties, scores, groups, sparsemixer, hidden,
    cosines, nulls, thresholds, blocks, causal_blocks, modes, ranks, failures, expert_choice)}


def numbers(r, s):
    wide = s["experts"] + s.get("null", 0)
    if r.random() < s.get("faulty", 0):
        return [r.choice(["nan", "inf", "-inf"])] + [real(r, 0, 1)] * (wide - 1)
    if s.get("input") == "hidden":
        return [real(r, -2, 2, 4) for _ in range(s["width"])]
    if s.get("input") == "logits":
        return [real(r, -3, 3) for _ in range(wide)]
    return [real(r, 0, 1, s.get("digits", 2)) for _ in range(wide)]


def make_case(r, topic, name):
    s, num_tokens, attributes = TOPICS[topic](r)
    written = {key: value for key, value in s.items() if key not in ("width", "digits", "faulty")}
    lines = [f"case {name}", "  ".join(f"{key} {value}" for key, value in written.items())]
    if s.get("input") == "hidden" and "gate_rows" not in s:
        lines += ["gate_row " + " ".join(str(real(r, -1, 1)) for _ in range(s["width"])) for _ in range(s["experts"])]
    for t in range(num_tokens):
        words = " ".join(f"{key} {value()}" for key, value in attributes.items())
        lines.append(f"token {t}  " + " ".join(str(v) for v in numbers(r, s)) + (f"  / {words}" if words else ""))
    text = "\n".join(lines) + "\n"
    case = route_cases.read_cases(text, name)[0]
    try:
        decision = oracle.Decision(case)
    except route_cases.Invalid:
        return text + "expect invalid\n"
    for label, (items, _) in oracle.describe(decision).items():
        text += f"expect {label}: {' '.join(items) or '-'}\n"
    return text


def make_file(topic, count, seed):
    r = random.Random(f"{topic} {seed}")
    head = f"# {topic}: made by random_cases.py {topic} {count} {seed}; the expectations are oracle.py's.\n"
    return head + "\n" + "\n".join(make_case(r, topic, f"{topic}-{i}") for i in range(count))


def against(lab, count, seed):
    per_topic = max(1, count // len(TOPICS))
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for topic in TOPICS:
            paths.append(Path(folder) / f"{topic}.route")
            paths[-1].write_text(make_file(topic, per_topic, seed))
        result = subprocess.run([lab, "route", "--quiet", *paths], capture_output=True, text=True)
        print(result.stdout[-4000:], result.stderr[-4000:])
        if result.returncode:
            kept = Path(tempfile.mkdtemp(prefix="routes-"))
            for path in paths:
                (kept / path.name).write_text(path.read_text())
            print(f"the cases are in {kept}")
        return result.returncode


def main(args):
    if args == ["--write"]:
        for topic in TOPICS:
            (HERE / f"{topic}.route").write_text(make_file(topic, 9, 1))
        return 0
    if len(args) == 4 and args[0] == "--against":
        return against(args[1], int(args[2]), args[3])
    if len(args) == 3 and args[0] in TOPICS:
        print(make_file(args[0], int(args[1]), args[2]))
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
