"""/metrics parses, counts what was done, and names what each expert did; /healthz and /readyz answer."""
import collections
import json
import shutil
import socket
import subprocess
import unittest
import urllib.request

from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families

from harness import HANG_SECONDS, Server, ServerTest, generate, text_request


def families(server):
    return {family.name: family for family in text_string_to_metric_families(server.metrics())}


def sums(server, name, *by, **labels):
    """The samples named `name` whose labels include `labels`, summed by the labels `by`."""
    totals = collections.Counter()
    for family in families(server).values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                totals[tuple(sample.labels[label] for label in by)] += sample.value
    return totals


class MetricsTest(ServerTest):
    def families(self):
        return families(self.server)

    def total(self, name, **labels):
        return sums(self.server, name, **labels)[()]

    def test_counts_requests_and_tokens(self):
        requests = self.total("gatehouse_requests_total", code="OK", method="Generate")
        generated = self.total("gatehouse_generated_tokens_total")
        prompt = self.total("gatehouse_prompt_tokens_total")
        answer = generate(self.server, text_request(max_new_tokens=20))
        self.assertEqual(self.total("gatehouse_generated_tokens_total") - generated, 20)
        self.assertEqual(self.total("gatehouse_prompt_tokens_total") - prompt, answer.started.prompt_tokens)
        # Counted when gRPC has sent the status, a moment after the client may have it.
        for _ in range(HANG_SECONDS * 50):
            if self.total("gatehouse_requests_total", code="OK", method="Generate") == requests + 1:
                break
        self.assertEqual(self.total("gatehouse_requests_total", code="OK", method="Generate"), requests + 1)

    def test_every_assignment_of_a_token_is_some_experts(self):
        before = self.total("gatehouse_expert_tokens_total")
        answer = generate(self.server, text_request(max_new_tokens=20))
        model = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        rows = answer.started.prompt_tokens - answer.started.cached_prompt_tokens + 20 - 1
        self.assertEqual(self.total("gatehouse_expert_tokens_total") - before,
                         rows * len(model.moe_layers) * model.experts_per_token)
        series = {(sample.labels["layer"], sample.labels["expert"])
                  for sample in self.families()["gatehouse_expert_tokens"].samples
                  if sample.name == "gatehouse_expert_tokens_total"}
        self.assertLessEqual(series, {(str(layer), str(expert)) for layer in model.moe_layers
                                      for expert in range(model.experts)})

    def test_types_follow_the_names(self):
        for name, family in self.families().items():
            if not name.startswith("gatehouse_"):
                continue
            is_counter = any(sample.name.endswith("_total") for sample in family.samples)
            self.assertEqual(family.type == "counter", is_counter, name)
            self.assertNotEqual(family.documentation, "", name)

    def test_connections_that_say_nothing_do_not_keep_probes_waiting(self):
        host, port = self.server.ready["metrics"].rsplit(":", 1)
        silent = [socket.create_connection((host, int(port))) for _ in range(12)]
        try:
            for each in silent:
                each.sendall(b"GET /healthz HTTP/1.1\r\n")
            with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=5) as response:
                self.assertEqual(response.status, 200)
        finally:
            for each in silent:
                each.close()

    def test_promtool_finds_nothing_wrong(self):
        promtool = shutil.which("promtool")
        if promtool is None:
            self.skipTest("promtool is not installed (deploy/install-deps.sh --tools)")
        generate(self.server, text_request())
        done = subprocess.run([promtool, "check", "metrics"], input=self.server.metrics(), text=True,
                              capture_output=True, timeout=HANG_SECONDS, check=False)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_probes_answer(self):
        base = f"http://{self.server.ready['metrics']}"
        with urllib.request.urlopen(f"{base}/healthz", timeout=HANG_SECONDS) as response:
            self.assertEqual(response.status, 200)
        with urllib.request.urlopen(f"{base}/readyz", timeout=HANG_SECONDS) as response:
            self.assertEqual(response.status, 200)
            self.assertIsInstance(json.loads(response.read()), dict)


class BoundedMetricsTest(ServerTest):
    """Prompts alone, in steps of their own: every number is known from the report and the policy."""
    FLAGS = ("--metrics-level", "2")

    def setUp(self):
        self.model = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        thresholds = [admin.LayerThresholds(layer=layer, experts=[0.3] * self.model.experts)
                      for layer in self.model.moe_layers]
        policy = admin.RoutingPolicy(
            devices=admin.ExpertDevices(count=4),
            shared=admin.BoundedRouting(policy="device_bound", device_factor=0.75, min_mean_load=0, reroute=2,
                                        force=True, exempt_layers=admin.LayerList()),
            isolated=admin.BoundedRouting(policy="threshold", affinity=admin.BoundedRouting.SHARE,
                                          thresholds=thresholds, exempt_layers=admin.LayerList()))
        self.server.admin.SetRoutingPolicy(admin.SetRoutingPolicyRequest(policy=policy))

    def report(self, mode, seed):
        ids = [5 + (seed * 7919 + i * i * 31 + i * 17) % 400 for i in range(100)]
        return generate(self.server, pb.GenerateRequest(
            tokens=pb.TokenIds(ids=ids), routing=pb.Routing(mode=mode), output=pb.Output(moe_report=True),
            stop=pb.Stop(max_new_tokens=1))).finished.moe_report

    def added(self, run, **counters):
        """What run() returns, and for each counter (its name, then labels to sum by) what run() added."""
        before = {key: sums(self.server, *counter) for key, counter in counters.items()}
        result = run()
        return result, {key: sums(self.server, *counter) - before[key] for key, counter in counters.items()}

    def test_exact_requests_show_nothing_of_bounds(self):
        with Server(*self.FLAGS) as server:
            generate(server, text_request())
            names = {name for name in families(server) if name.split("_")[1] in ("device", "expert", "routing")}
        self.assertEqual(names, {"gatehouse_expert_load_imbalance_ratio", "gatehouse_expert_tokens"})

    def test_what_a_shared_prompt_lost_it_lost_to_the_budgets_of_devices(self):
        report, added = self.added(
            lambda: self.report(pb.Routing.SHARED, 1), mass=("gatehouse_routing_gate_mass_total", "mode", "part"),
            overflow=("gatehouse_expert_overflow_tokens_total", "action", "cause"),
            got=("gatehouse_device_tokens_total", "device"), budget=("gatehouse_device_budget_tokens_total", "device"))
        self.assertAlmostEqual(added["mass"]["shared", "computed"] / added["mass"]["shared", "chosen"],
                               report.gate_mass_kept, places=9)
        self.assertEqual(added["overflow"]["reroute", "device"], report.rerouted)
        # Coverage takes places from tokens that keep another expert.
        self.assertEqual(added["overflow"]["drop", "device"] + added["overflow"]["drop", "coverage"], report.dropped)
        self.assertEqual(sum(added["overflow"].values()), report.rerouted + report.dropped)
        num_layers = len(self.model.moe_layers)
        pairs = report.assignments // num_layers  # of one layer
        budget = num_layers * -(-3 * pairs // 16)  # 0.75 of a quarter, rounded up in each layer
        self.assertEqual(added["budget"], {(str(device),): budget for device in range(4)})
        self.assertEqual(sum(added["got"].values()), report.assignments - report.dropped)

    def test_what_an_isolated_prompt_lost_was_below_the_threshold(self):
        report, added = self.added(
            lambda: self.report(pb.Routing.ISOLATED, 2), mass=("gatehouse_routing_gate_mass_total", "mode", "part"),
            overflow=("gatehouse_expert_overflow_tokens_total", "action", "cause"))
        self.assertEqual(added["overflow"], {("drop", "threshold"): report.dropped})
        self.assertGreater(report.dropped, 0)
        self.assertAlmostEqual(added["mass"]["threshold", "computed"] / added["mass"]["threshold", "chosen"],
                               report.gate_mass_kept, places=9)

    def test_experts_are_chosen_as_often_as_reports_say(self):
        self.report(pb.Routing.SHARED, 3)  # from now on it is shown
        reports, added = self.added(
            lambda: [self.report(mode, 4) for mode in (pb.Routing.SHARED, pb.Routing.ISOLATED, pb.Routing.EXACT)],
            chosen=("gatehouse_expert_chosen_tokens_total", "layer"), got=("gatehouse_expert_tokens_total", "layer"))
        self.assertEqual(sum(added["chosen"].values()), sum(report.assignments for report in reports))
        self.assertEqual(sum(added["got"].values()), sum(r.assignments - r.dropped for r in reports))
        self.assertEqual(len(set(added["chosen"].values())), 1, "every layer chooses for every token")


if __name__ == "__main__":
    unittest.main(verbosity=2)
