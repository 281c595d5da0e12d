"""What bounded routing keeps of a skewed load: a recorded trace, decided by the engine under a device bound and by a linear
program that knows no rule but the bound."""
import json
import pathlib
import struct
import subprocess
import tempfile
import unittest

import numpy as np
from gatehouse.v1 import inference_pb2 as pb
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from harness import DEMO_MODEL, Server, generate, program

NUM_DEVICES = 8
DEVICE_FACTOR = 1.25
ABSENT = 65535  # an expert that a rank does not have
NUM_PROMPTS = 12  # of real text, each but the first a step of its own: the busiest device is asked for 1.2 to 3 times its part


def read_trace(path):
    """Header, and of each step the ranks as (expert ids, P), both [layers, rows, ranks]. The format: engine/moe/route_trace.h."""
    data = path.read_bytes()
    if data[:8] != b"GHROUTE1":
        raise ValueError("not a trace")
    num_experts, num_layers, top_k, num_ranked = struct.unpack_from("<4I", data, 24)
    at, steps = 40, []
    while at < len(data):
        num_rows, = struct.unpack_from("<I", data, at)
        at += 4 + 9 * num_rows
        pairs = np.frombuffer(data, "<u2", 2 * num_layers * num_rows * num_ranked, at)
        at += pairs.nbytes
        pairs = pairs.reshape(num_layers, num_rows, num_ranked, 2)
        steps.append((pairs[..., 0], (pairs[..., 1].astype(np.uint32) << 16).view(np.float32)))
    return num_experts, top_k, steps


def most_mass(gate, top_k, budgets, device_of):
    """The most gate mass that any assignment keeps: at most top_k experts a row, at most the budget a device."""
    rows, experts = np.nonzero(gate > 0)
    variables = np.arange(len(rows))
    num_rows = gate.shape[0]
    constraints = coo_matrix((np.ones(2 * len(rows)),
                              (np.concatenate([rows, num_rows + device_of[experts]]), np.tile(variables, 2))),
                             shape=(num_rows + len(budgets), len(rows)))
    limits = np.concatenate([np.full(num_rows, top_k), budgets])
    solved = linprog(-gate[rows, experts], A_ub=constraints.tocsr(), b_ub=limits, bounds=(0, 1), method="highs")
    if solved.status != 0:
        raise ValueError(solved.message)
    return -solved.fun


def gates_of(ids, values, num_experts):
    """P by expert, [rows, experts]; 0 where it was not recorded."""
    gate = np.zeros((ids.shape[0], num_experts + 1))
    np.put_along_axis(gate, np.where(ids == ABSENT, num_experts, ids).astype(np.int64), values.astype(np.float64), axis=1)
    return gate[:, :-1]


class RoutingGainTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.trace = pathlib.Path(folder.name) / "trace"
        cls.route_file = pathlib.Path(folder.name) / "layers.route"
        texts = np.fromfile(DEMO_MODEL.parent / "validation.u16", "<u2").reshape(-1, 257)
        with Server("--record-routes", str(cls.trace), "--max-step-tokens", "512", "--max-step-ms", "100000") as server:
            for text in texts[::len(texts) // NUM_PROMPTS][:NUM_PROMPTS]:
                generate(server, pb.GenerateRequest(tokens=pb.TokenIds(ids=text[:255].tolist()),
                                                    stop=pb.Stop(max_new_tokens=1)))
        cls.num_experts, cls.top_k, steps = read_trace(cls.trace)
        cls.layers = [gates_of(ids, values, cls.num_experts) for step in steps for ids, values in zip(*step)]
        assert sum(map(len, cls.layers)) == 6 * NUM_PROMPTS * 255

    def decide(self):
        """The engine's outcome for every recorded step and layer."""
        lines = []
        for i, gate in enumerate(self.layers):
            lines += [f"case layer-{i}", f"experts {self.num_experts}  top_k {self.top_k}  devices {NUM_DEVICES}  "
                      f"gamma_dev {DEVICE_FACTOR}  nbar_min 0  reroute 8"]
            lines += [f"token {t}  {' '.join(f'{p:.9g}' for p in row)}  / home {t % NUM_DEVICES}"
                      for t, row in enumerate(gate)]
            lines.append("")
        self.route_file.write_text("\n".join(lines))
        done = subprocess.run([program("gatehouse-lab"), "route", "--json", str(self.route_file)], check=True,
                              capture_output=True, text=True)
        return [json.loads(line)["outcome"] for line in done.stdout.splitlines()]

    def test_devices_stay_within_their_budget_and_nearly_all_the_mass_that_can_be_kept_is(self):
        device_of = np.arange(self.num_experts) * NUM_DEVICES // self.num_experts
        chosen = kept = most = 0
        skews = []
        outcomes = self.decide()
        self.assertEqual(len(outcomes), len(self.layers))
        for gate, outcome in zip(self.layers, outcomes):
            loads, budgets = (np.array([int(n) for n in outcome[key]]) for key in ("device_load", "B[0,0]"))
            np.testing.assert_array_equal(budgets, np.ceil(DEVICE_FACTOR * gate.shape[0] * self.top_k / NUM_DEVICES))
            self.assertLessEqual(np.maximum(loads - budgets, 0).sum(), len(outcome["overrides"]))
            layer_kept, layer_chosen = map(float, outcome["mass"])
            layer_most = most_mass(gate, self.top_k, budgets, device_of)
            if not outcome["overrides"]:
                self.assertLessEqual(layer_kept, layer_most * (1 + 1e-6))
            kept, chosen, most = kept + layer_kept, chosen + layer_chosen, most + layer_most
            top = np.argsort(-gate, axis=1, kind="stable")[:, :self.top_k]
            asked = np.bincount(device_of[top.ravel()], minlength=NUM_DEVICES)
            skews.append((asked.max() / asked.mean(), layer_kept / layer_most))
        print("\nbusiest device over the mean: kept of the optimum")
        for low, high in ((1, 1.5), (1.5, 2), (2, 2.5), (2.5, 8)):
            ratios = [ratio for skew, ratio in skews if low <= skew < high]
            print(f"  {low} to {high}: {len(ratios)} layers, {min(ratios, default=1):.4f} to {max(ratios, default=1):.4f}")
        print(f"all: {kept / most:.4f} of the optimum, {kept / chosen:.4f} of all")
        self.assertGreater(np.mean([skew for skew, _ in skews]), DEVICE_FACTOR, "or the bound would not bind")
        self.assertGreater(kept / most, 0.98)

    def test_simulate_keeps_as_much(self):
        policy = f"device: gamma_dev {DEVICE_FACTOR} nbar_min 0 reroute 8"
        done = subprocess.run([program("gatehouse-lab"), "simulate", str(self.trace), "--devices", str(NUM_DEVICES),
                               "--policy", policy, "--json"], check=True, capture_output=True, text=True)
        simulated = json.loads(done.stdout)
        masses = [tuple(map(float, outcome["mass"])) for outcome in self.decide()]
        kept, chosen = map(sum, zip(*masses))
        # Homes and keys of ties differ.
        self.assertAlmostEqual(simulated["gate_mass_kept"], kept / chosen, delta=0.005)


if __name__ == "__main__":
    unittest.main()
