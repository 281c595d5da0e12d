"""R12 to R15 and R18: pairs that compete for the same places. See oracle.py."""
from route_cases import INF


class Pool:
    """`C`, `floor`, `B`, `hw` and `rows` as the rules name them; `decision` holds rows, tokens and pairs."""

    def __init__(self, decision, members, C, floor, B, hw=None, rows=None, in_block=False):
        self.d, self.members, self.C, self.floor, self.B = decision, members, C, floor, B
        self.hw = hw or [INF] * decision.n
        self.rows = rows or [INF] * decision.R
        self.in_block = in_block
        self.waiting = []

    def all(self):
        return [p for t in self.members for p in self.d.pairs[t]]

    def key(self, p):
        return self.d.key_of(p, self.in_block)

    def placed(self):
        return [p for p in self.all() if p.device >= 0]

    def load(self, i):
        return sum(p.expert == i for p in self.placed())

    def device_load(self, device):
        return sum(p.device == device for p in self.placed())

    def copy_load(self, i, device):
        return sum(p.expert == i and p.device == device for p in self.placed())

    def home(self, p):
        return self.d.tokens[p.t]["home"]

    # R12
    def expert_choice(self):
        kept = []
        for i in range(self.d.n):
            order = sorted((p for p in self.all() if p.chosen == i), key=self.key)
            for place, p in enumerate(order, 1):
                p.position = place
                if place <= self.C[i]:
                    kept.append(p)
                else:
                    self.waiting.append(p)
        self.copies(kept)

    def copies(self, kept):
        for i in range(self.d.n):
            mine = sorted((p for p in kept if p.chosen == i), key=self.key)
            copies = self.d.copies[i]
            share = -(-len(mine) // len(copies))
            held = {device: 0 for device in copies}
            rest = []
            for p in mine:
                if self.home(p) in held and held[self.home(p)] < share:
                    p.device = self.home(p)
                    held[p.device] += 1
                else:
                    rest.append(p)
            for p in rest:
                p.device = min(copies, key=lambda device: (held[device], device))
                held[p.device] += 1

    # R13
    def trim(self, device_pressure):
        for device in range(self.d.R):
            while self.device_load(device) > self.B[device]:
                here = [p for p in self.placed() if p.device == device]
                beyond = [p for p in here if p.position > self.floor[p.expert]]
                if not beyond:
                    device_pressure[device] += 1
                last = max(beyond or here, key=self.key)
                last.device = -1
                self.waiting.append(last)

    # R14
    def find_copy(self, i, home, allowed):
        room = [device for device in self.d.copies[i]
                if (allowed is None or device in allowed) and self.device_load(device) < self.B[device]]
        if not room:
            return None
        return home if home in room else min(room, key=lambda device: (self.copy_load(i, device), device))

    def reroute(self):
        self.waiting.sort(key=self.key)
        self.d.evicted += self.waiting
        for p in self.waiting:
            p.fate = "dropped"
        for p in self.waiting:
            self.try_reroute(p)

    def try_reroute(self, p):
        s, row = self.d.s, self.d.row[p.t]
        p.fate, p.device = "dropped", -1
        if s.word("score", "given") == "sparsemixer":
            return
        m, rho = int(min(s.real("reroute", 0) or 0, self.d.n)), s.real("rho", 0.5)
        rho = 0 if rho is None else rho
        mine = self.d.pairs[p.t]
        if s.word("policy", "token_choice") == "expert_choice" and not self.in_block:
            candidates = row.ranking[row.chosen:row.chosen + m]
        else:
            candidates = row.ranking[row.chosen:row.chosen + m]
        allowed = None if self.in_block else {self.home(p)} | {q.device for q in mine if q.device >= 0}
        for j in candidates:
            # "used": the experts it has and had
            if any(j in (q.expert, q.chosen) for q in mine):
                continue
            if not self.load(j) < self.C[j]:
                continue
            if not float(row.P[j]) >= rho * float(row.P[p.chosen]) * (1 - 1e-6):
                continue
            device = self.find_copy(j, self.home(p), allowed)
            if device is None:
                continue
            p.expert, p.device, p.fate = j, device, "rerouted"
            return

    # R15
    def survivors(self, t):
        return [p for p in self.d.pairs[t] if p.device >= 0]

    def cover(self):
        s = self.d.s
        if not s.on("coverage", True) or s.on("shared_expert"):
            return
        bare = [self.d.pairs[t][0] for t in self.members if self.d.pairs[t] and not self.survivors(t)]
        original = lambda p: self.d.key(p.t, p.chosen, p.slot, self.in_block)
        for p in sorted(bare, key=original):
            i = p.chosen
            if self.load(i) < self.C[i]:
                device = self.find_copy(i, self.home(p), None)
                if device is not None:
                    self.restore(p, device, self.d.covered)
                    continue
            rivals = [q for q in self.placed() if q.expert == i and len(self.survivors(q.t)) >= 2]
            if rivals:
                last = max(rivals, key=self.key)
                device = last.device
                last.fate, last.device = "dropped", -1
                self.restore(p, device, self.d.covered)
                continue
            if self.load(i) < self.hw[i]:
                room = [device for device in self.d.copies[i] if self.device_load(device) < self.rows[device]]
                if room:
                    home = self.home(p)
                    device = home if home in room else min(room, key=lambda x: (self.copy_load(i, x), x))
                    self.restore(p, device, self.d.overrides)

    def restore(self, p, device, report):
        p.expert, p.device, p.fate = p.chosen, device, "kept"
        report.append(p)

    # R18, causal. Which copy computes a pair decides nothing here and is settled last: R12 for the kept pairs, then
    # as in R14, in the order of the decisions.
    def causal(self):
        kept, moved = [], []
        for t in sorted(self.members, key=lambda t: self.d.tokens[t]["position"]):
            evicted = []
            for p in self.d.pairs[t]:
                if self.load(p.chosen) < self.C[p.chosen]:
                    p.device = self.d.copies[p.chosen][0]
                    kept.append(p)
                else:
                    evicted.append(p)
            evicted.sort(key=self.key)
            self.d.evicted += evicted
            for p in evicted:
                p.fate, p.device = "dropped", -1
            for p in evicted:
                self.try_reroute(p)
            moved += [p for p in evicted if p.fate == "rerouted"]
            if self.d.pairs[t] and not self.survivors(t):
                p = self.d.pairs[t][0]
                self.restore(p, self.d.copies[p.chosen][0], self.d.overrides)
                moved.append(p)
        for p in moved:
            p.device = -1
        self.copies(kept)
        for p in moved:
            p.device = self.find_copy(p.expert, self.home(p), None)
