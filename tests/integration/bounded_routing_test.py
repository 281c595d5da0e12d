"""Bounded routing over gRPC: what each mode promises, bit by bit, and how operators steer it."""
import concurrent.futures
import itertools
import json
import pathlib
import tempfile
import unittest

import grpc
from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families

from harness import DEMO_MODEL, Server, ServerTest, generate, text_request

Code = grpc.StatusCode
NUM_EXPERTS = 16  # of models/demo, in six layers, two a token
BLOCKED = admin.BoundedRouting(policy="locmoe_plus", isolation=admin.BoundedRouting.BLOCK_CAUSAL, expert_factor=1,
                               block_tokens=32, exempt_layers=admin.LayerList())
# Every device may have three quarters of its part of the load: a quarter of the work is gone.
TIGHT = admin.BoundedRouting(policy="device_bound", device_factor=0.75, min_mean_load=0, reroute=2, force=True,
                             exempt_layers=admin.LayerList())
DEVICES = admin.ExpertDevices(count=4)
NUM_ROUNDS = 20


def threshold(value):
    """On the share of two choices: the second is dropped below `value`."""
    layers = [admin.LayerThresholds(layer=layer, experts=[value] * NUM_EXPERTS) for layer in range(6)]
    return admin.BoundedRouting(policy="threshold", affinity=admin.BoundedRouting.SHARE, thresholds=layers,
                                exempt_layers=admin.LayerList())


def request_of(mode, seed, num_tokens=100, max_new_tokens=12, **fields):
    """A prompt of its own for each seed; shows every bit that a client can see."""
    ids = [5 + (seed * 7919 + i * i * 31 + i * 17) % 400 for i in range(num_tokens)]
    return pb.GenerateRequest(
        tokens=pb.TokenIds(ids=ids), sampling=pb.Sampling(temperature=0),
        stop=pb.Stop(max_new_tokens=max_new_tokens, ignore_eos=True), routing=pb.Routing(mode=mode),
        output=fields.pop("output", pb.Output(top_logprobs=3, moe_report=True)), **fields)


def every_row():
    return pb.Output(top_logprobs=3, prompt_logprobs=0, routed_experts=True, moe_report=True)


def bits(answer):
    """Tokens, log-probabilities and experts, but nothing of time or cache."""
    return [token.SerializeToString() for token in answer.prompt_tokens + answer.tokens]


def bearer(token):
    return {"metadata": [("authorization", f"Bearer {token}")]}


class Traffic:
    """Requests of others, on and on, while the `with` block runs."""

    def __init__(self, server, mode, num_clients=3, **call):
        self._server, self._mode, self._call = server, mode, call
        self._pool = concurrent.futures.ThreadPoolExecutor(num_clients)
        self._stopping = False
        self._seeds = itertools.count(1000)

    def _run(self):
        answers = 0
        while not self._stopping:
            seed = next(self._seeds)
            generate(self._server, request_of(self._mode, seed, 40 + seed * 37 % 160, 6), **self._call)
            answers += 1
        return answers

    def __enter__(self):
        self._clients = [self._pool.submit(self._run) for _ in range(self._pool._max_workers)]
        return self

    def __exit__(self, *_):
        self._stopping = True
        self.answers = sum(client.result() for client in self._clients)
        self._pool.shutdown()


class BoundedRoutingTest(ServerTest):
    FLAGS = ("--max-sequences", "8", "--max-step-tokens", "256")

    def setUp(self):
        self.set_policy(isolated=BLOCKED, shared=TIGHT, devices=DEVICES)

    def set_policy(self, server=None, **fields):
        request = admin.SetRoutingPolicyRequest(policy=admin.RoutingPolicy(**fields))
        return (server or self.server).admin.SetRoutingPolicy(request)

    def assert_report(self, answer, mode):
        report = answer.finished.moe_report
        self.assertEqual(report.mode, mode)
        self.assertGreater(report.assignments, 0)
        self.assertEqual(report.kept + report.rerouted + report.dropped, report.assignments)
        self.assertEqual(report.exact, report.rerouted == 0 and report.dropped == 0)
        self.assertTrue(report.exact or 0 < report.gate_mass_kept < 1, report)
        return report

    def test_metrics_and_expert_load_add_up_to_the_reports(self):
        with Server(*self.FLAGS) as server:
            self.set_policy(server, shared=TIGHT, isolated=BLOCKED, devices=DEVICES)
            modes = [pb.Routing.EXACT, pb.Routing.SHARED, pb.Routing.ISOLATED] * 3
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda i: generate(server, request_of(modes[i], 100 + i)), range(len(modes))))
            load = server.admin.GetExpertLoad(admin.GetExpertLoadRequest())
            families = {family.name: family for family in text_string_to_metric_families(server.metrics())}
        reports = [answer.finished.moe_report for answer in answers]

        def total(name, **labels):
            return sum(sample.value for sample in families[name].samples
                       if sample.name == name + "_total" and labels.items() <= sample.labels.items())

        for fate in "kept", "rerouted", "dropped":
            self.assertEqual(total("gatehouse_routing_assignments", fate=fate),
                             sum(getattr(report, fate) for report in reports), fate)
        for fate, action in ("rerouted", "reroute"), ("dropped", "drop"):
            count = sum(getattr(report, fate) for report in reports)
            self.assertGreater(count, 0)
            self.assertEqual(total("gatehouse_expert_overflow_tokens", action=action), count)
            self.assertEqual(total(f"gatehouse_expert_{fate}_tokens"), count)
            self.assertEqual(sum(sum(getattr(layer, fate)) for layer in load.layers), count)
        chosen = total("gatehouse_routing_gate_mass", part="chosen")
        computed = total("gatehouse_routing_gate_mass", part="computed")
        weights = [report.assignments for report in reports]  # a layer's choices sum to about the same mass
        mean = sum(w * report.gate_mass_kept for w, report in zip(weights, reports)) / sum(weights)
        self.assertAlmostEqual(computed / chosen, mean, delta=0.02)
        self.assertEqual(total("gatehouse_routing_assignments", mode="exact", fate="dropped"), 0)
        # Of the last step with a domain, in which experts have no bound, or with blocks, of four places an expert.
        for layer in load.layers:
            self.assertEqual([places % 4 for places in layer.capacity], [0] * len(layer.capacity))
            self.assertEqual(len(set(layer.capacity)), min(len(layer.capacity), 1))
        for sample in families["gatehouse_device_budget_usage_ratio"].samples:
            self.assertTrue(0 < sample.value <= 1.5, sample)  # beyond 1 by overrides only

    def test_expert_load_shows_the_capacity_in_force(self):
        bound = admin.BoundedRouting(policy="locmoe_plus", expert_factor=1, min_mean_load=0, force=True,
                                     exempt_layers=admin.LayerList(layers=[0]))
        with Server(*self.FLAGS) as server:
            self.set_policy(server, shared=bound, devices=DEVICES)
            generate(server, request_of(pb.Routing.SHARED, 7, num_tokens=96, max_new_tokens=1))
            load = server.admin.GetExpertLoad(admin.GetExpertLoadRequest())
        self.assertFalse(load.layers[0].capacity, "exempt")
        for layer in load.layers[1:]:
            self.assertEqual(list(layer.capacity), [96 * 2 // NUM_EXPERTS] * NUM_EXPERTS)

    def test_exact_requests_have_the_same_bits_next_to_bounded_traffic(self):
        alone = generate(self.server, request_of(pb.Routing.EXACT, 1, output=every_row()))
        self.assertTrue(self.assert_report(alone, pb.Routing.EXACT).exact)
        self.assertEqual(alone.finished.moe_report.gate_mass_kept, 1)
        for mode in pb.Routing.SHARED, pb.Routing.ISOLATED:
            with Traffic(self.server, mode) as traffic:
                for _ in range(5):
                    beside = generate(self.server, request_of(pb.Routing.EXACT, 1, output=every_row()))
                    self.assertEqual(bits(beside), bits(alone))
            self.assertGreater(traffic.answers, 0)

    def test_an_exact_prompt_may_take_what_shared_ones_left_in_the_cache(self):
        exact = generate(self.server, request_of(pb.Routing.EXACT, 2))
        for salt in "abcdef":
            shared = generate(self.server, request_of(pb.Routing.SHARED, 2, cache_salt=salt))
            after = generate(self.server, request_of(pb.Routing.EXACT, 2, cache_salt=salt))
            self.assertEqual(bits(after), bits(exact))
            self.assertFalse(self.assert_report(shared, pb.Routing.SHARED).exact)

    def test_isolated_requests_have_the_same_bits_in_any_company_chunks_cache_and_preemption(self):
        for policy in BLOCKED, threshold(0.3):
            with self.subTest(policy=policy.policy):
                self.set_policy(isolated=policy, shared=TIGHT, devices=DEVICES)
                # A report would want every row computed.
                requests = [request_of(pb.Routing.ISOLATED, seed, 60 + 29 * seed, 30, output=pb.Output(top_logprobs=3))
                            for seed in range(4)]
                alone = [generate(self.server, request) for request in requests]
                reported = generate(self.server, request_of(pb.Routing.ISOLATED, 3, 147, 30))
                self.assertFalse(self.assert_report(reported, pb.Routing.ISOLATED).exact)
                self.assertEqual(bits(reported), bits(alone[3]))
                warm = [generate(self.server, request) for request in requests]
                self.assertTrue(all(answer.started.cached_prompt_tokens > 0 for answer in warm))
                self.assertEqual([bits(a) for a in warm], [bits(a) for a in alone])
                with Traffic(self.server, pb.Routing.SHARED), Traffic(self.server, pb.Routing.ISOLATED):
                    for request, expected in zip(requests, alone, strict=True):
                        self.assertEqual(bits(generate(self.server, request)), bits(expected))
                # Steps of other sizes; then memory for 16 blocks, which two of the requests together outgrow.
                for flags in (("--max-step-tokens", "48"),
                              ("--max-step-tokens", "64", "--kv-cache-bytes", str(16 * 96 << 10))):
                    with Server("--max-sequences", "8", *flags) as server:
                        self.set_policy(server, isolated=policy)
                        # Until two that outgrow the memory have met: on a slow client one may end before the next.
                        for _ in range(NUM_ROUNDS):
                            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                                answers = list(pool.map(lambda r, s=server: generate(s, r), requests * 2))
                            self.assertEqual([bits(a) for a in answers], [bits(a) for a in alone] * 2)
                            preemptions = sum(a.finished.timings.preemptions for a in answers)
                            if "--kv-cache-bytes" not in flags or preemptions > 0:
                                break
                        else:
                            self.fail(f"no preemption in {NUM_ROUNDS} rounds")

    def test_infinite_bounds_change_no_bit(self):
        for shared in (admin.BoundedRouting(policy="device_bound", device_factor=1e6, force=True),
                       admin.BoundedRouting(policy="locmoe_plus", expert_factor=1e6, min_mean_load=0, force=True),
                       admin.BoundedRouting(policy="token_choice")):
            self.set_policy(shared=shared, isolated=threshold(0), devices=DEVICES)
            exact = generate(self.server, request_of(pb.Routing.EXACT, 3, output=every_row()))
            for mode in pb.Routing.SHARED, pb.Routing.ISOLATED:
                bounded = generate(self.server, request_of(mode, 3, output=every_row()))
                self.assertEqual(bits(bounded), bits(exact))
                self.assertTrue(self.assert_report(bounded, mode).exact)

    def test_dropped_slots_have_no_expert_and_the_report_counts_them(self):
        answer = generate(self.server, request_of(pb.Routing.SHARED, 4, output=every_row()))
        report = self.assert_report(answer, pb.Routing.SHARED)
        slots = [slot for row in answer.prompt_tokens + answer.tokens[1:]
                 for slot in zip(row.routed_experts.expert_ids, row.routed_experts.weights, strict=True)]
        self.assertEqual(len(slots), report.assignments)
        self.assertEqual(sum(expert == -1 for expert, _ in slots), report.dropped)
        self.assertTrue(all((expert == -1) == (weight == 0) for expert, weight in slots))
        self.assertGreater(report.rerouted, 0)
        # Generated tokens are exact unless decode is bounded, too.
        decoded = [e for row in answer.tokens[1:] for e in row.routed_experts.expert_ids]
        self.assertNotIn(-1, decoded)

    def test_a_running_request_keeps_its_version(self):
        version = self.server.admin.GetRoutingPolicy(admin.GetRoutingPolicyRequest()).version
        before = generate(self.server, request_of(pb.Routing.SHARED, 5, max_new_tokens=150, output=every_row()))
        stream = self.server.stub.Generate(
            request_of(pb.Routing.SHARED, 5, max_new_tokens=150, output=every_row()))
        events = [next(stream), next(stream), next(stream)]
        in_force = self.set_policy(shared=admin.BoundedRouting(policy="token_choice"))
        self.assertEqual(in_force.version, version + 1)
        events += list(stream)
        finished = events[-1].finished
        self.assertEqual(finished.moe_report.policy_version, version)
        self.assertEqual(finished.moe_report, before.finished.moe_report)
        after = generate(self.server, request_of(pb.Routing.SHARED, 5))
        self.assertEqual(after.finished.moe_report.policy_version, version + 1)
        self.assertTrue(after.finished.moe_report.exact)

    def test_what_cannot_be_used_is_named_and_changes_nothing(self):
        def shared(**fields):
            return {"shared": admin.BoundedRouting(policy="device_bound", force=True, **fields)}

        def isolated(**fields):
            return {"isolated": admin.BoundedRouting(policy="locmoe_plus", expert_factor=1, **fields)}
        bad = {
            "shared.device_factor: got 0,": shared(device_factor=0),
            "shared.device_factor: got -1,": shared(device_factor=-1),
            "shared.device_factor: got nan,": shared(device_factor=float("nan")),
            "shared.expert_factor: got 1e+30,": shared(expert_factor=1e30),
            "shared.expert_factor: got inf,": shared(expert_factor=float("inf")),
            "shared.capacity: got -1,": shared(capacity=-1),
            "shared.zeta: got nan,": shared(zeta=float("nan")),
            "shared.reroute: got 17,": shared(reroute=17),
            "shared.max_renormalisation: got 0.5,": shared(max_renormalisation=0.5),
            "shared.exempt_layers.layers[0]: got 6,": shared(exempt_layers=admin.LayerList(layers=[6])),
            "shared.policy: got \"gshard\", expected one of": {"shared": admin.BoundedRouting(policy="gshard")},
            # For the workbench alone: which experts a token gets would depend on tokens after it.
            "shared.policy: got \"expert_choice\", expected one of token_choice,":
                {"shared": admin.BoundedRouting(policy="expert_choice", force=True)},
            "isolated.policy: got \"expert_choice\", expected one of token_choice,":
                {"isolated": admin.BoundedRouting(policy="expert_choice")},
            "shared.isolation: set": shared(isolation=admin.BoundedRouting.BLOCK),
            "isolated.block_tokens: got 24,": isolated(block_tokens=24),
            "isolated.block_tokens: got 256, expected a multiple of the KV block's 16 tokens, at most 248":
                isolated(block_tokens=256),
            "isolated.bound_decode: true": isolated(bound_decode=True),
            "isolated.device_factor: set": isolated(device_factor=1),
            "isolated.thresholds: none for layer 1": {"isolated": admin.BoundedRouting(policy="threshold")},
            "isolated.thresholds[0].experts: thresholds: got 3, expected one for each of 16": {
                "isolated": admin.BoundedRouting(
                    policy="threshold", thresholds=[admin.LayerThresholds(layer=1, experts=[0, 0, 0])])},
            "devices.count: got 17,": {**shared(), "devices": admin.ExpertDevices(count=17)},
            "default_mode: got ISOLATED, for which there is no policy": {"default_mode": pb.Routing.ISOLATED},
            "default_mode: got SHARED, loosest_mode allows EXACT":
                {**shared(), "default_mode": pb.Routing.SHARED, "loosest_mode": pb.Routing.EXACT},
        }
        before = self.server.admin.GetRoutingPolicy(admin.GetRoutingPolicyRequest())
        for text, fields in bad.items():
            with self.subTest(text):
                error = self.assert_fails(Code.INVALID_ARGUMENT, lambda f=fields: self.set_policy(**f))
                self.assertIn(text, error.details())
        error = self.assert_fails(Code.FAILED_PRECONDITION,
                                  lambda: self.set_policy(shared=admin.BoundedRouting(policy="device_bound")))
        self.assertIn("shared.calibration_file", error.details())
        stale = admin.SetRoutingPolicyRequest(policy=before, expected_version=before.version - 1)
        error = self.assert_fails(Code.ABORTED, lambda: self.server.admin.SetRoutingPolicy(stale))
        self.assertIn(f"got {before.version - 1}, in force is {before.version}", error.details())
        self.assertEqual(self.server.admin.GetRoutingPolicy(admin.GetRoutingPolicyRequest()), before)
        # What is in force can be set as it is.
        again = self.server.admin.SetRoutingPolicy(
            admin.SetRoutingPolicyRequest(policy=before, expected_version=before.version))
        before.version += 1
        self.assertEqual(again, before)

    def test_a_calibration_belongs_to_its_model(self):
        model_hash = self.server.stub.GetModelInfo(pb.GetModelInfoRequest()).hash
        layers = [{"thresholds": [0.2 + 0.01 * layer] * NUM_EXPERTS, "delta": 0.1, "effective_dim": 20,
                   "bound_cost": 0.001, "exempt": layer == 0} for layer in range(6)]
        calibration = {"format": "gatehouse-calibration", "version": 1, "model_hash": model_hash,
                       "num_experts": NUM_EXPERTS, "affinity": "share", "drop_share": 0.25, "num_tokens": 1000,
                       "loss": 1.5, "expert_rows_per_second": 1000, "layers": layers, "quality": []}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "calibration.json"

            def set_with(**changes):
                path.write_text(json.dumps({**calibration, **changes}))
                return self.set_policy(
                    shared=admin.BoundedRouting(policy="device_bound", calibration_file=str(path)),
                    isolated=admin.BoundedRouting(policy="threshold", calibration_file=str(path)))
            before = self.server.admin.GetRoutingPolicy(admin.GetRoutingPolicyRequest())
            for changes, expected in (({"model_hash": "0123456789abcdef"}, ("0123456789abcdef", model_hash)),
                                      ({"version": 2}, ("version: got 2",)),
                                      ({"layers": layers[:4]}, ("layers: got 4", "6 MoE layers")),
                                      ({"num_experts": 3}, ("thresholds",))):
                error = self.assert_fails(Code.FAILED_PRECONDITION, lambda c=changes: set_with(**c))
                self.assertIn("isolated.calibration_file: ", error.details())
                for text in expected:
                    self.assertIn(text, error.details())
            self.assertEqual(self.server.admin.GetRoutingPolicy(admin.GetRoutingPolicyRequest()), before)
            in_force = set_with()
        self.assertEqual([round(value, 6) for value in in_force.isolated.thresholds[3].experts], [0.23] * NUM_EXPERTS)
        self.assertEqual(in_force.isolated.affinity, admin.BoundedRouting.SHARE)
        self.assertEqual(list(in_force.isolated.exempt_layers.layers), [0])
        answer = generate(self.server, request_of(pb.Routing.ISOLATED, 6))
        self.assertGreater(self.assert_report(answer, pb.Routing.ISOLATED).dropped, 0)

    def test_the_theory_floor_is_each_layers_of_the_calibration(self):
        model_hash = self.server.stub.GetModelInfo(pb.GetModelInfoRequest()).hash
        low, high = (20, 0.1), (1000, 1)  # effective dimension, delta: a floor of one row, and of all places

        def dropped(of_layers=None, **theory):
            layers = [{"thresholds": [0] * NUM_EXPERTS, "delta": delta, "effective_dim": dim, "bound_cost": 0,
                       "exempt": False} for dim, delta in of_layers or [low] * 6]
            calibration = {"format": "gatehouse-calibration", "version": 1, "model_hash": model_hash,
                           "num_experts": NUM_EXPERTS, "affinity": "gate", "drop_share": 0.25, "num_tokens": 1000,
                           "loss": 1.5, "expert_rows_per_second": 1000, "layers": layers, "quality": []}
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(calibration, file)
                file.flush()
                self.set_policy(shared=admin.BoundedRouting(
                    policy="locmoe_plus", expert_factor=1, min_mean_load=0, reroute=0, coverage=False, eager=True,
                    exempt_layers=admin.LayerList(layers=[0]), theory=admin.TheoryFloor(**theory),
                    calibration_file=file.name))
            answer = generate(self.server, request_of(pb.Routing.SHARED, 6))
            return self.assert_report(answer, pb.Routing.SHARED).dropped

        all_low, all_high = dropped([low] * 6), dropped([high] * 6)
        self.assertLess(all_high, all_low)
        self.assertEqual(all_low, dropped(effective_dimension=low[0], delta=low[1]))
        self.assertEqual(all_high, dropped([low] * 6, effective_dimension=high[0], delta=high[1]))
        by_layer = [all_low - dropped([high if layer == i else low for layer in range(6)]) for i in range(6)]
        self.assertEqual(by_layer[0], 0, "exempt")
        self.assertTrue(all(saved > 0 for saved in by_layer[1:]), by_layer)
        error = self.assert_fails(Code.INVALID_ARGUMENT, lambda: dropped([low] * 4 + [(0, 0.1), low]))
        self.assertIn("shared.theory: the calibration's of layer 4: d_eff: got 0,", error.details())
        # An exempt layer needs no floor; a floor without calibration needs its numbers.
        dropped([(0, 0.1)] + [low] * 5)
        error = self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.set_policy(shared=admin.BoundedRouting(
            policy="locmoe_plus", theory=admin.TheoryFloor(), force=True)))
        self.assertIn("shared.theory.effective_dimension: got 0,", error.details())


class TenantsTest(ServerTest):
    TENANTS = """
        tenants:
          - {name: a, default-mode: shared, loosest-mode: shared, tokens: [aaaaaaaaaaaaaaaa]}
          - {name: b, loosest-mode: shared, tokens: [bbbbbbbbbbbbbbbb]}
          - {name: strict, loosest-mode: isolated, tokens: [cccccccccccccccc]}
    """
    POLICY = """
        default_mode: isolated
        isolated: {policy: locmoe_plus, expert_factor: 1.0, isolation: block}
        shared:
          policy: device_bound
          device_factor: 0.75
          min_mean_load: 0
          force: true
        devices: {count: 4}
    """
    A, B, STRICT = bearer("a" * 16), bearer("b" * 16), bearer("c" * 16)

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        files = {"tenants": cls.TENANTS, "policy": cls.POLICY, "secret": "00112233445566778899aabbccddeeff\n"}
        for name, text in files.items():
            (pathlib.Path(folder.name) / name).write_text(text)
        cls.FLAGS = ("--max-sequences", "16", "--tenants", f"{folder.name}/tenants",
                     "--routing-config", f"{folder.name}/policy", "--routing-secret-file", f"{folder.name}/secret")
        super().setUpClass()

    def test_a_tenants_bits_do_not_depend_on_what_another_sends(self):
        def run():
            return [generate(self.server, request_of(pb.Routing.SHARED, seed, output=every_row()), **self.A)
                    for seed in range(6)]
        alone = run()
        self.assertFalse(all(answer.finished.moe_report.exact for answer in alone))
        for mode in pb.Routing.SHARED, pb.Routing.EXACT, pb.Routing.ISOLATED:
            with Traffic(self.server, mode, num_clients=4, **self.B):
                beside = run()
            self.assertEqual([bits(answer) for answer in beside], [bits(answer) for answer in alone])
            self.assertEqual([a.finished.moe_report for a in beside], [a.finished.moe_report for a in alone])

    def test_the_mode_is_the_tenants_default_and_no_looser_than_it_may_be(self):
        def mode_of(tenant, mode=pb.Routing.MODE_UNSPECIFIED):
            return generate(self.server, request_of(mode, 9), **tenant).finished.moe_report.mode
        self.assertEqual(mode_of(self.A), pb.Routing.SHARED)
        self.assertEqual(mode_of(self.B), pb.Routing.ISOLATED)  # the server's default
        self.assertEqual(mode_of(self.STRICT), pb.Routing.ISOLATED)
        self.assertEqual(mode_of(self.STRICT, pb.Routing.EXACT), pb.Routing.EXACT)
        error = self.assert_fails(Code.PERMISSION_DENIED, lambda: mode_of(self.STRICT, pb.Routing.SHARED))
        self.assertIn("got shared, the loosest mode of tenant \"strict\" is isolated", error.details())
        self.assertIn("tenant=a mode=shared", self.server.log())

    def test_operators_see_the_mode_of_a_request(self):
        stream = self.server.stub.Generate(request_of(pb.Routing.SHARED, 10, max_new_tokens=150), **self.B)
        next(stream)
        requests = self.server.admin.GetRequests(admin.GetRequestsRequest(tenant="b")).requests
        self.assertEqual([request.mode for request in requests], [pb.Routing.SHARED])
        stream.cancel()


class ConfigurationTest(unittest.TestCase):
    def test_a_bad_file_ends_the_server_with_2_naming_the_field(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "policy.yaml"
            for text, expected in {"shraed: {policy: device_bound}": "shraed",
                                   "shared: {policy: device_bound, device_factor: .nan, force: true}":
                                       "shared.device_factor: got nan",
                                   "shared: {policy: device_bound}": "shared.calibration_file: not set",
                                   "shared: [": "line 1"}.items():
                path.write_text(text)
                with self.subTest(text):
                    with self.assertRaises(AssertionError) as caught:
                        Server("--routing-config", str(path))
                    self.assertIn("the server ended with 2", str(caught.exception))
                    self.assertIn(expected, str(caught.exception))
                    self.assertIn("policy.yaml", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
