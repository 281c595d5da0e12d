"""Ranks broken on purpose: what operators are answered, and 32 clients whose answers do not change while ranks die, stall
and come back and experts move.

    GATEHOUSE_SOAK_SECONDS=600 tests/integration/run.sh faults_test.py      as .ci/nightly does it
"""
import concurrent.futures
import os
import pathlib
import random
import re
import time
import unittest

import grpc
from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb

from harness import HANG_SECONDS, Server, ServerTest, generate

SOAK_SECONDS = float(os.environ.get("GATEHOUSE_SOAK_SECONDS", "30"))
NUM_RANKS = 4
NUM_CLIENTS = 32
Fault = admin.InjectFaultRequest


def fault(kind, rank, **more):
    return Fault(fault=kind, rank=rank, **more)


def request_of(seed):
    ids = [300 + (seed * 37 + i * i) % 700 for i in range(16 + seed % 5 * 40)]
    mode = (pb.Routing.EXACT, pb.Routing.ISOLATED)[seed % 2]
    return pb.GenerateRequest(
        tokens=pb.TokenIds(ids=ids), sampling=pb.Sampling(temperature=0.8 if seed % 3 else 0, seed=seed),
        stop=pb.Stop(max_new_tokens=4 + seed % 7 * 6, ignore_eos=True), routing=pb.Routing(mode=mode),
        output=pb.Output(top_logprobs=2))


def bits(answer):
    return [token.SerializeToString() for token in answer.tokens]


def wait_until(condition, what):
    limit = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited {HANG_SECONDS} s for {what}")
        time.sleep(0.05)


class FaultsTest(ServerTest):
    FLAGS = ("--ranks", str(NUM_RANKS), "--allow-fault-injection")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server.admin.SetRoutingPolicy(admin.SetRoutingPolicyRequest(policy=admin.RoutingPolicy(
            isolated=admin.BoundedRouting(policy="locmoe_plus", isolation=admin.BoundedRouting.BLOCK_CAUSAL,
                                          expert_factor=0.75, block_tokens=32, reroute=0,
                                          exempt_layers=admin.LayerList()))))
        cls.requests = [request_of(seed) for seed in range(40)]
        cls.expected = [bits(generate(cls.server, request)) for request in cls.requests]

    def metric(self, name):
        """Summed over its series; at least one is there."""
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.server.metrics(), re.MULTILINE)
        self.assertTrue(values, name)
        return sum(map(float, values))

    def holds(self):
        process = pathlib.Path(f"/proc/{self.server.process.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def test_a_dead_rank_is_seen_and_comes_back(self):
        losses = self.metric("gatehouse_rank_losses_total")
        self.server.admin.InjectFault(fault(Fault.DEAD_RANK, 2, duration_seconds=2))
        wait_until(lambda: self.server.admin.GetStatus(admin.GetStatusRequest()).degraded, "a status that says it")
        status = self.server.admin.GetStatus(admin.GetStatusRequest())
        self.assertEqual([rank.serving for rank in status.ranks], [True, True, False, True])
        self.assertIn("rank 2 is lost", status.degraded[0])
        self.assertEqual(status.state, admin.ServerStatus.SERVING)
        with self.assertRaises(grpc.RpcError) as raised:
            self.server.admin.Rebalance(admin.RebalanceRequest(force=True))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertIn("rank 2 is lost", raised.exception.details())
        held = {r for layer in self.server.admin.GetPlacement(admin.GetPlacementRequest()).layers
                for expert in layer.experts for r in expert.ranks}
        self.assertEqual(held, {0, 1, 3})
        self.assertEqual(bits(generate(self.server, self.requests[3])), self.expected[3])
        wait_until(lambda: not self.server.admin.GetStatus(admin.GetStatusRequest()).degraded, "the rank")
        later = self.server.admin.GetStatus(admin.GetStatusRequest())
        self.assertGreater(later.epoch, status.epoch)
        self.assertEqual(self.metric("gatehouse_rank_up"), NUM_RANKS)
        self.assertEqual(self.metric("gatehouse_rank_losses_total"), losses + 1)
        self.assertEqual(bits(generate(self.server, self.requests[3])), self.expected[3])

    def test_faults_that_make_no_sense_are_refused_by_name(self):
        for request, expected in ((fault(Fault.DEAD_RANK, 0), "rank: got 0"), (fault(Fault.SLOW_RANK, 4), "rank: got 4"),
                                  (fault(Fault.SLOW_RANK, -1), "rank: got -1"), (Fault(), "fault: got 0"),
                                  (fault(Fault.DEAD_RANK, 1, duration_seconds=3601), "duration_seconds: got 3601"),
                                  (fault(Fault.SLOW_RANK, 1, delay_seconds=float("nan")), "delay_seconds: got nan")):
            with self.subTest(expected), self.assertRaises(grpc.RpcError) as raised:
                self.server.admin.InjectFault(request)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(expected, raised.exception.details())
        with Server("--ranks", "2") as other, self.assertRaises(grpc.RpcError) as raised:
            other.admin.InjectFault(fault(Fault.SLOW_RANK, 1))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertIn("--allow-fault-injection", raised.exception.details())

    def inject_until(self, end):
        """A random fault every second or two, a rebalance every five; how many were injected."""
        rng = random.Random(7)
        num_injected, next_rebalance = 0, time.monotonic() + 5
        while time.monotonic() < end:
            kind = rng.choice([Fault.DEAD_RANK, Fault.DEAD_RANK, Fault.SLOW_RANK, Fault.LOST_MESSAGE, Fault.FULL_CACHE])
            rank = rng.randrange(1 if kind == Fault.DEAD_RANK else 0, NUM_RANKS)
            self.server.admin.InjectFault(fault(kind, rank, duration_seconds=rng.uniform(0.2, 2), delay_seconds=0.02))
            num_injected += 1
            if time.monotonic() > next_rebalance:
                next_rebalance += 5
                try:
                    self.server.admin.Rebalance(admin.RebalanceRequest(replicas=8, force=True))
                except grpc.RpcError as error:  # a rank is lost, or one is under way
                    self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
            time.sleep(rng.uniform(1, 2))
        return num_injected

    def test_no_request_is_lost_or_answered_otherwise(self):
        before, losses = self.holds(), self.metric("gatehouse_rank_losses_total")
        end = time.monotonic() + SOAK_SECONDS
        counts = [0] * NUM_CLIENTS
        wrong = []

        def client(number):
            rng = random.Random(number)
            while time.monotonic() < end and not wrong:
                seed = rng.randrange(len(self.requests))
                if bits(generate(self.server, self.requests[seed])) != self.expected[seed]:
                    wrong.append(seed)
                counts[number] += 1

        with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(NUM_CLIENTS)]
            num_injected = self.inject_until(end)
            for each in clients:
                each.result()
        self.assertEqual(wrong, [])
        self.assertGreater(min(counts), 0)
        losses = self.metric("gatehouse_rank_losses_total") - losses
        self.assertGreater(losses, 0)
        wait_until(lambda: self.metric("gatehouse_rank_up") == NUM_RANKS, "all ranks")
        wait_until(lambda: self.metric('gatehouse_kv_blocks{state="used"}') == 0, "the blocks")
        after = self.holds()
        self.assertLessEqual(after[0], before[0] + 8, "descriptors")  # of connections that are kept
        self.assertLessEqual(after[1], before[1] + 8, "threads")
        print(f"{sum(counts)} requests, {num_injected} faults, {losses:.0f} losses of ranks; {self.recovery()}", flush=True)

    def recovery(self):
        """By the buckets of the histogram: at most so long."""
        buckets = [(float(le), float(count)) for le, count in
                   re.findall(r'^gatehouse_regroup_duration_seconds_bucket{le="([^+"]+)"} (\S+)$', self.server.metrics(),
                              re.MULTILINE)]
        total = self.metric("gatehouse_regroup_duration_seconds_count")
        median, most = (next((le for le, count in buckets if count >= share), float("inf")) for share in (total / 2, total))
        return f"{total:.0f} groups, without steps for at most {median:.3f} s (p50), {most:.3f} s (max)"


if __name__ == "__main__":
    unittest.main(verbosity=2)
