"""Several ranks in one process: the answers of one, experts that move while requests run, and what operators see."""
import concurrent.futures
import re
import subprocess
import time
import unittest

import grpc
from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb

from harness import HANG_SECONDS, Server, ServerTest, generate, program

NUM_RANKS = 4
NUM_LAYERS, NUM_EXPERTS = 6, 16  # of models/demo, two experts a token
State = admin.RebalanceStatus


def request_of(seed, num_tokens=200, max_new_tokens=8, mode=pb.Routing.EXACT):
    # Few different ids, so that few experts get most of the work.
    ids = [300 + (seed * 31 + i * i * 7) % 5 for i in range(num_tokens)]
    return pb.GenerateRequest(
        tokens=pb.TokenIds(ids=ids), sampling=pb.Sampling(temperature=0), cache_salt=str(seed),
        stop=pb.Stop(max_new_tokens=max_new_tokens, ignore_eos=True), routing=pb.Routing(mode=mode),
        output=pb.Output(top_logprobs=2, prompt_logprobs=0, routed_experts=True))


def bits(answer):
    return [token.SerializeToString() for token in answer.prompt_tokens + answer.tokens]


def metric(server, name):
    return {labels: float(value) for labels, value in
            re.findall(rf"^{name}{{(.*)}} (\S+)$", server.metrics(), re.MULTILINE)}


class RanksTest(ServerTest):
    FLAGS = ("--ranks", str(NUM_RANKS))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.requests = [request_of(seed) for seed in range(12)]
        with Server() as one:
            cls.expected = [bits(generate(one, request)) for request in cls.requests]

    def answers(self):
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            return [bits(answer) for answer in pool.map(lambda r: generate(self.server, r), self.requests)]

    def rebalance(self, **fields):
        """Under traffic, to its end; the states that were seen."""
        started = self.server.admin.Rebalance(admin.RebalanceRequest(**fields))
        seen = [started]
        watch = self.server.admin.WatchRebalance(admin.WatchRebalanceRequest(interval_seconds=0.1), timeout=HANG_SECONDS)
        for status in watch:
            seen.append(status)
            if status.state not in (State.PLANNED, State.MOVING):
                break
        watch.cancel()
        self.assertEqual({status.id for status in seen}, {started.id})
        return seen

    def placement(self):
        placement = self.server.admin.GetPlacement(admin.GetPlacementRequest())
        self.assertEqual(placement.ranks, NUM_RANKS)
        self.assertEqual([layer.layer for layer in placement.layers], list(range(NUM_LAYERS)))
        return [[list(copies.ranks) for copies in layer.experts] for layer in placement.layers]

    def test_a_server_of_ranks_says_so(self):
        info = self.server.stub.GetServerInfo(pb.GetServerInfoRequest())
        self.assertEqual(info.ranks, NUM_RANKS)
        status = self.server.admin.GetStatus(admin.GetStatusRequest())
        self.assertEqual([(rank.rank, rank.serving) for rank in status.ranks], [(r, True) for r in range(NUM_RANKS)])

    def test_answers_stay_the_same_bits_while_experts_move(self):
        self.assertEqual(self.answers(), self.expected)
        before = self.placement()
        self.assertTrue(all(len(copies) == 1 for layer in before for copies in layer))
        for seed in range(100, 130):  # enough to plan by
            generate(self.server, request_of(seed, 240, 1))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(self.answers)
            seen = self.rebalance(replicas=6)
            self.assertEqual(under_way.result(), self.expected)
        last = seen[-1]
        self.assertEqual(last.state, State.ACTIVE, last)
        self.assertEqual(last.layers_moved, last.layers)
        self.assertGreater(last.expert_copies, 0)
        self.assertLess(last.planned_imbalance, last.imbalance)
        after = self.placement()
        self.assertNotEqual(after, before)
        self.assertGreater(max(len(copies) for layer in after for copies in layer), 1)
        for layer in self.server.admin.GetExpertLoad(admin.GetExpertLoadRequest()).layers:
            self.assertEqual(list(layer.replicas), [len(copies) for copies in after[layer.layer]])
            self.assertEqual(list(layer.rank), [copies[0] for copies in after[layer.layer]])
        self.assertEqual(self.answers(), self.expected)

        tokens = metric(self.server, "gatehouse_expert_rank_tokens_total")
        self.assertEqual(len(tokens), NUM_RANKS)
        experts = sum(sum(layer.tokens) for layer in self.server.admin.GetExpertLoad(admin.GetExpertLoadRequest()).layers)
        self.assertEqual(sum(tokens.values()), experts)
        sent = metric(self.server, "gatehouse_alltoall_bytes_total")
        for phase in "gather", "dispatch", "combine":
            self.assertEqual(sent[f'direction="sent",phase="{phase}"'], sent[f'direction="received",phase="{phase}"'])
            self.assertGreater(sent[f'direction="sent",phase="{phase}"'], 0)

    def test_operators_see_and_move_experts_from_the_command_line(self):
        shown = self.admin_command("placement", "--layer", "3")
        self.assertEqual(len(shown.stdout.splitlines()), 1 + NUM_RANKS)
        for rank in range(NUM_RANKS):
            self.assertIn(f"layer 3   rank {rank}", shown.stdout)
        moved = self.admin_command("rebalance", "--replicas", "1000")
        self.assertEqual(moved.returncode, 1)
        self.assertIn("replicas: got 1000", moved.stderr)
        moved = self.admin_command("rebalance")
        self.assertEqual(moved.returncode, 0, moved.stderr)
        self.assertRegex(moved.stdout.splitlines()[-1], r"^rebalance \d+  (IDLE|ACTIVE)  .*")

    def admin_command(self, *words):
        return subprocess.run([program("gatehouse"), "admin", *words, "--target", self.server.ready["admin"]],
                              capture_output=True, text=True, timeout=HANG_SECONDS)

    def test_what_cannot_be_is_refused_with_both_numbers(self):
        most = NUM_EXPERTS * (NUM_RANKS - 1)
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT,
                                  lambda: self.server.admin.Rebalance(admin.RebalanceRequest(replicas=most + 1)))
        self.assertIn(f"replicas: got {most + 1}, expected 0 to {most}", error.details())

    def test_sequences_are_spread_and_each_rank_has_a_cache(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: generate(self.server, request_of(seed, 60, 40)), range(200, 208)))
        limit = time.monotonic() + HANG_SECONDS
        while self.server.admin.GetStatus(admin.GetStatusRequest()).kv_blocks_used > 0 and time.monotonic() < limit:
            time.sleep(0.05)
        self.assertEqual(self.server.admin.GetStatus(admin.GetStatusRequest()).kv_blocks_used, 0)
        waits = metric(self.server, "gatehouse_rank_wait_seconds_total")
        self.assertEqual(len(waits), NUM_RANKS)


if __name__ == "__main__":
    unittest.main()
