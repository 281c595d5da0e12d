"""Shadow-exact over gRPC: its numbers are those that a client works out for itself; it is in nobody's way or sight."""
import concurrent.futures
import math
import pathlib
import tempfile
import time
import unittest

from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families

from harness import HANG_SECONDS, Server, generate

TOP = 20  # what is compared token by token: all that a client may ask for
TIGHT = admin.BoundedRouting(policy="device_bound", device_factor=0.5, min_mean_load=0, reroute=0, force=True,
                             exempt_layers=admin.LayerList())
LOOSE = admin.BoundedRouting(policy="device_bound", device_factor=1e6, min_mean_load=0, force=True,
                             exempt_layers=admin.LayerList())
BLOCKS = admin.BoundedRouting(policy="locmoe_plus", isolation=admin.BoundedRouting.BLOCK_CAUSAL, expert_factor=0.5,
                              block_tokens=32, reroute=0, exempt_layers=admin.LayerList())
TOKENS = {"web": "web-token-0123456789", "lab": "lab-token-0123456789"}


def prompt(seed, num_tokens=100):
    return [5 + (seed * 7919 + i * i * 31 + i * 17) % 400 for i in range(num_tokens)]


def request_of(ids, mode=pb.Routing.EXACT, max_new_tokens=1, allowed=(), output=None):
    return pb.GenerateRequest(
        tokens=pb.TokenIds(ids=ids), sampling=pb.Sampling(temperature=0, allowed_token_ids=allowed),
        stop=pb.Stop(max_new_tokens=max_new_tokens, ignore_eos=True), routing=pb.Routing(mode=mode),
        output=output or pb.Output(top_logprobs=TOP))


def lumped_kl(exact, bounded):
    """KL(exact || bounded) over the tokens and all others as one (docs/routing.md)."""
    rest = [max(1 - sum(map(math.exp, logprobs)), 1e-6) for logprobs in (exact, bounded)]
    return sum(math.exp(p) * (p - q) for p, q in zip(exact, bounded, strict=True)) + rest[0] * math.log(rest[0] / rest[1])


def set_policy(server, **fields):
    policy = admin.RoutingPolicy(devices=admin.ExpertDevices(count=4), **fields)
    server.admin.SetRoutingPolicy(admin.SetRoutingPolicyRequest(policy=policy))


def shadow(server, mode="shared"):
    """Name of the series without what all begin with -> value."""
    values = dict.fromkeys(("replayed", "skipped", "tokens", "agreed_tokens", "kl_nats"), 0)
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            if not sample.name.startswith("gatehouse_shadow_exact_") or sample.labels["mode"] != mode:
                continue
            name = sample.name.removeprefix("gatehouse_shadow_exact_").removesuffix("_total")
            values[sample.labels.get("result", name)] = sample.value
    return values


def wait_until(condition):
    limit = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError("waited in vain")
        time.sleep(0.02)


def wait_until_replayed(server, number, mode="shared"):
    wait_until(lambda: sum(shadow(server, mode)[result] for result in ("replayed", "skipped")) >= number)
    return shadow(server, mode)


class ShadowExactTest(unittest.TestCase):
    FLAGS = ("--shadow-exact-fraction", "1", "--max-sequences", "8", "--max-step-tokens", "256")

    def exact_logprobs(self, server, ids, wanted):
        """Of the tokens `wanted` after `ids`, in exact mode; and the most likely token."""
        answer = generate(server, request_of(ids)).tokens[0]
        known = {top.id: top.logprob for top in answer.top}
        for token in set(wanted) - set(known):
            forced = generate(server, request_of(ids, allowed=[token], output=pb.Output(top_logprobs=0)))
            known[token] = forced.tokens[0].logprob
        return [known[token] for token in wanted], answer.top[0].id

    def test_a_client_finds_the_same_divergence_and_agreement(self):
        for mode, name in ((pb.Routing.SHARED, "shared"), (pb.Routing.ISOLATED, "isolated")):
            with self.subTest(name), Server(*self.FLAGS) as server:
                set_policy(server, shared=TIGHT, isolated=BLOCKS)
                answers = [generate(server, request_of(prompt(seed), mode, 8)) for seed in range(3)]
                # Before anything else: requests would be in its way.
                found = wait_until_replayed(server, 3, name)
                agreed, kl = 0, 0
                for seed, answer in enumerate(answers):
                    for i, token in enumerate(answer.tokens):
                        top = [top.id for top in token.top]
                        self.assertEqual(len(top), TOP)
                        exact, best = self.exact_logprobs(server, prompt(seed) + answer.ids[:i], top)
                        agreed += best == top[0]
                        kl += lumped_kl(exact, [top.logprob for top in token.top])
                self.assertEqual(found["replayed"], 3)
                self.assertEqual(found["tokens"], 24)
                self.assertLess(agreed, 24)
                self.assertEqual(found["agreed_tokens"], agreed)
                self.assertGreater(kl, 0.1)
                # The same float log-probabilities and formula in double: only the order of rounding differs.
                self.assertAlmostEqual(found["kl_nats"], kl, delta=1e-6 * kl)

    def test_bounds_that_never_bind_cost_nothing(self):
        with Server(*self.FLAGS) as server:
            set_policy(server, shared=LOOSE)
            for seed in range(4):
                generate(server, request_of(prompt(seed), pb.Routing.SHARED, 40))
            self.assertEqual(wait_until_replayed(server, 4),
                             {"replayed": 4, "skipped": 0, "tokens": 160, "agreed_tokens": 160, "kl_nats": 0})

    def test_no_tenant_pays_for_a_replay_or_sees_it(self):
        with tempfile.TemporaryDirectory() as folder:
            tenants = pathlib.Path(folder) / "tenants.yaml"
            tenants.write_text("tenants:\n" + "".join(
                f"  - {{name: {name}, loosest-mode: shared, tokens: [{token}]}}\n" for name, token in TOKENS.items()))
            with Server(*self.FLAGS, "--tenants", str(tenants)) as server:
                set_policy(server, shared=TIGHT)
                seen = set()
                for name, token in TOKENS.items():
                    call = {"metadata": [("authorization", f"Bearer {token}")]}
                    for seed in range(10):
                        generate(server, request_of(prompt(seed, 200), pb.Routing.SHARED, 5), **call)
                        listed = server.admin.GetRequests(admin.GetRequestsRequest()).requests
                        seen |= {request.tenant for request in listed}
                values = wait_until_replayed(server, 20)
                # One at a time leaves short gaps: a replay may be given up.
                self.assertGreater(values["replayed"], 0)
                self.assertEqual(values["replayed"] + values["skipped"], 20)
                self.assertLessEqual(seen, set(TOKENS))
                series = {}
                for family in text_string_to_metric_families(server.metrics()):
                    for sample in family.samples:
                        series.setdefault(sample.name, []).append((sample.labels, sample.value))
                self.assertEqual({labels["tenant"] for labels, _ in series["gatehouse_tenant_tokens_total"]}, set(TOKENS))
                for labels, value in series["gatehouse_tenant_tokens_total"]:
                    self.assertEqual(value, {"prompt": 2000, "generated": 50}[labels["kind"]])
                self.assertEqual([value for _, value in series["gatehouse_generated_tokens_total"]], [100])
                self.assertEqual(sum(value for _, value in series["gatehouse_prompt_tokens_total"]), 4000)
                self.assertEqual(len(server.admin.GetRequests(admin.GetRequestsRequest()).requests), 0)
                status = server.admin.GetStatus(admin.GetStatusRequest())
                self.assertEqual((status.running_requests, status.waiting_requests), (0, 0))
                # The engine says so once the last replay has ended.
                wait_until(lambda: server.admin.GetStatus(admin.GetStatusRequest()).kv_blocks_used == 0)

    def test_replays_wait_while_others_run(self):
        with Server(*self.FLAGS) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
            set_policy(server, shared=TIGHT)
            long = [pool.submit(generate, server, request_of(prompt(seed, 5), max_new_tokens=250)) for seed in range(3)]
            wait_until(lambda: server.admin.GetStatus(admin.GetStatusRequest()).running_requests == 3)
            generate(server, request_of(prompt(9, 40), pb.Routing.SHARED, 2))
            waiting = shadow(server)
            running = server.admin.GetStatus(admin.GetStatusRequest()).running_requests
            for answer in long:
                answer.result()
            self.assertGreater(running, 0, "the long requests were too short to show anything")
            self.assertEqual(waiting["replayed"] + waiting["skipped"], 0)
            self.assertEqual(wait_until_replayed(server, 1)["replayed"], 1)

    def test_a_trace_of_routes_holds_no_replay(self):
        sizes = []
        for fraction in "0", "1":
            with tempfile.TemporaryDirectory() as folder:
                trace = pathlib.Path(folder) / "trace"
                server = Server("--record-routes", str(trace), "--shadow-exact-fraction", fraction)
                set_policy(server, shared=TIGHT)
                for seed in range(3):
                    # Few enough rows for one step.
                    generate(server, request_of(prompt(seed, 12), pb.Routing.SHARED, 5))
                    if fraction == "1":
                        wait_until_replayed(server, seed + 1)
                self.assertEqual(server.stop(), 0)
                sizes.append(trace.stat().st_size)
        self.assertEqual(sizes[0], sizes[1])

    def test_a_drain_waits_for_no_replay(self):
        server = Server(*self.FLAGS)
        set_policy(server, shared=TIGHT)
        for seed in range(8):
            generate(server, request_of(prompt(seed, 200), pb.Routing.SHARED, 20))
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
