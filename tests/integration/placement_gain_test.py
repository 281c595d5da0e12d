"""What placing experts by load gains: a recorded trace of text unlike what the demo model was trained on, so that some
experts are wanted much more than others, routed again under each placement."""
import json
import pathlib
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gatehouse.v1 import inference_pb2 as pb

from harness import Server, generate, program
from routing_gain_test import read_trace

NUM_DEVICES = 8
NUM_PROMPTS = 96  # pieces of 300 characters of this repository's C++
SOURCES = pathlib.Path(__file__).parents[2] / "engine"


class PlacementGainTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.trace = pathlib.Path(folder.name) / "trace"
        text = "".join(path.read_text() for path in sorted(SOURCES.glob("moe/*.cc")))
        requests = [pb.GenerateRequest(text=text[at:at + 300], stop=pb.Stop(max_new_tokens=8))
                    for at in range(0, 300 * NUM_PROMPTS, 300)]
        with Server("--record-routes", str(cls.trace), "--max-step-tokens", "512", "--max-step-ms", "100000") as server:
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda request: generate(server, request), requests))

    def simulate(self, *flags):
        done = subprocess.run([program("gatehouse-lab"), "simulate", str(self.trace), "--json", *flags], check=True,
                              capture_output=True, text=True)
        return {line["placement"]: line for line in map(json.loads, done.stdout.splitlines())}

    def device_loads(self):
        """[steps, layers, devices] of experts in order, counted from the trace's bytes."""
        num_experts, top_k, steps = read_trace(self.trace)
        return np.array([[np.bincount(ids[:, :top_k].ravel() * NUM_DEVICES // num_experts, minlength=NUM_DEVICES)
                          for ids in experts.astype(int)] for experts, _ in steps])

    def test_placed_by_load_the_busiest_device_has_less_to_do(self):
        placements = [word for name in ("linear", "round-robin", "eplb", "balanced") for word in ("--placement", name)]
        simulated = self.simulate("--devices", str(NUM_DEVICES), "--replicas", "8", *placements)
        times = {name: round(line["step_time"], 3) for name, line in simulated.items()}
        print(f"\ntime of the experts over a balanced one: {times}")
        loads = self.device_loads()
        self.assertAlmostEqual(simulated["linear"]["step_time"], loads.max(axis=2).sum() / loads.mean(axis=2).sum())
        self.assertGreater(times["linear"], 1.5, "or the trace is not skewed")
        for name in ("eplb", "balanced"):
            self.assertLess(times[name] - 1, 0.6 * (times["linear"] - 1))
            self.assertEqual(simulated[name]["assignments"], simulated["linear"]["assignments"])
            self.assertEqual(simulated[name]["dropped"], 0)

    def test_placed_by_what_was_asked_so_far_too(self):
        flags = ["--devices", "4", "--rebalance", "5", "--replicas", "4"]
        simulated = self.simulate(*flags, "--placement", "linear", "--placement", "rebalanced")
        self.assertEqual(simulated["linear"]["rebalances"], 0)
        moved = simulated["rebalanced"]
        self.assertGreater(moved["rebalances"], 0)
        self.assertGreater(moved["copies_made"], 0)
        self.assertGreater(moved["predicted_gain"], 0.05)
        self.assertLess(moved["step_time"], simulated["linear"]["step_time"])


if __name__ == "__main__":
    unittest.main()
