"""Reading route files, and comparing what they expect with what was decided. See oracle.py."""
import math
from dataclasses import dataclass, field

import numpy as np

F = np.float32
INF = math.inf

SETTINGS = set("""experts top_k devices ranks mode place input score select affinity renorm scale bias gate_bias groups
topk_group group_score null jitter gate_rows capacity gamma zeta tile t_min nbar_min hw gamma_dev throughput rows eps tau
d_eff delta eager rank_local thresholds block policy choice_factor order tier reroute rho coverage shared_expert
after_drop r_max""".split())
ATTRIBUTES = set("key position request domain home rank mode pad cosine".split())


class Invalid(Exception):
    """Settings that contradict each other or the rows."""


class Malformed(Exception):
    """A file that is none."""



@dataclass
class Case:
    name: str
    settings: dict = field(default_factory=dict)
    gate_rows: list = field(default_factory=list)
    tokens: list = field(default_factory=list)  # (numbers or None, attributes)
    expectations: list = field(default_factory=list)  # (label, items, line)
    expects_invalid: bool = False


def number(word):
    if word in ("nan", "inf", "-inf"):
        return float(word)
    try:
        return float(word)
    except ValueError:
        raise Malformed(f"{word} is no number") from None


def pairs(words, names, line):
    if len(words) % 2:
        raise Malformed(f"line {line}: {words[-1]} has no value")
    for name in words[::2]:
        if name not in names:
            raise Malformed(f"line {line}: unknown name {name}")
    return dict(zip(words[::2], words[1::2]))


def read_cases(text, name):
    cases = []
    for line, content in enumerate(text.splitlines(), 1):
        words = content.split("#")[0].split()
        if not words:
            continue
        if words[0] == "case":
            case = Case(words[1])
            if len(words) > 2:
                like = next(c for c in cases if c.name == words[3])
                case.settings = dict(like.settings)
                case.gate_rows = list(like.gate_rows)
                case.tokens = list(like.tokens)
            cases.append(case)
            continue
        if not cases:
            cases.append(Case(name))
        case = cases[-1]
        if words[0] == "gate_row":
            case.gate_rows.append([F(number(w)) for w in words[1:]])
        elif words[0] == "token":
            at = words.index("/") if "/" in words else len(words)
            if words[1] != str(len(case.tokens)):
                raise Malformed(f"line {line}: token {words[1]}")
            numbers = None if words[2:at] == ["-"] else [F(number(w)) for w in words[2:at]]
            case.tokens.append((numbers, pairs(words[at + 1:], ATTRIBUTES, line)))
        elif words[0] == "expect" and words[1:] == ["invalid"]:
            case.expects_invalid = True
        elif words[0] == "expect":
            parts = " ".join(words[1:]).replace(":", " : ").split()
            if parts[1:2] != [":"]:
                raise Malformed(f"line {line}: expected LABEL: items")
            for at, part in enumerate(parts):
                if parts[at + 1:at + 2] == [":"]:
                    case.expectations.append((part, [], line))
                elif part != ":":
                    case.expectations[-1][1].append(part)
        else:
            case.settings.update(pairs(words, SETTINGS, line))
    return cases


class Settings:
    def __init__(self, words):
        self.words = words

    def word(self, name, default):
        return self.words.get(name, default)

    def on(self, name, default=False):
        return {"on": True, "off": False}[self.words.get(name, "on" if default else "off")]

    def real(self, name, default=None):
        """None: off."""
        if name not in self.words:
            return default
        return None if self.words[name] == "off" else number(self.words[name])

    def reals(self, name):
        if self.words.get(name, "off") == "off":
            return None
        return [number(w) for w in self.words[name].split(",")]


def same(got, expected, how):
    if how == "set":
        return set(got) == set(expected)
    if how == "list":
        return got == expected
    if how == "counts":
        expected = ["off" if e == "inf" else e for e in expected]
        return got == (expected * len(got) if len(expected) == 1 else expected)
    if len(got) != len(expected):
        return False
    for a, b in zip(got, expected):
        name_a, _, a = a.rpartition("=")
        name_b, _, b = b.rpartition("=")
        if name_a != name_b or not abs(float(a) - float(b)) <= 1e-5 * abs(float(b)) + 1e-7:
            return False
    return True
