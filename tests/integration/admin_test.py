"""The operators' service: what it shows is what happened, and what it does is done."""
import time
import unittest

import grpc
from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import admin_pb2_grpc
from gatehouse.v1 import inference_pb2 as pb
from gatehouse.v1 import inference_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness import HANG_SECONDS, Server, ServerTest, generate, text_request

Code = grpc.StatusCode
LONG = 240  # tokens: nearly the demo model's context


class AdminTest(ServerTest):
    FLAGS = ("--max-sequences", "2")

    def status(self):
        return self.server.admin.GetStatus(admin.GetStatusRequest())

    def test_status_counts_what_was_done(self):
        before = self.status()
        while before.running_requests + before.waiting_requests > 0:  # what another test cancelled
            before = self.status()
        self.assertEqual(before.state, admin.ServerStatus.SERVING)
        self.assertEqual(before.model, self.server.stub.GetModelInfo(pb.GetModelInfoRequest()).name)
        answer = generate(self.server, text_request("A sentence that no other test sends, of some words."))
        after = self.status()
        self.assertEqual(after.totals.generated_tokens - before.totals.generated_tokens, 16)
        new = after.totals.prompt_tokens - before.totals.prompt_tokens
        cached = after.totals.cached_prompt_tokens - before.totals.cached_prompt_tokens
        self.assertEqual(new + cached, answer.started.prompt_tokens)
        self.assertEqual(after.totals.ended_requests - before.totals.ended_requests, 1)
        self.assertGreater(after.totals.steps, before.totals.steps)
        self.assertGreater(after.kv_blocks_total, 0)
        self.assertEqual([(rank.rank, rank.serving) for rank in after.ranks], [(0, True)])
        self.assertEqual((list(after.reasons), list(after.degraded)), ([], []))
        limits = self.server.stub.GetServerInfo(pb.GetServerInfoRequest()).limits
        self.assertEqual(after.kv_blocks_total * after.kv_block_tokens, limits.kv_cache_tokens)
        self.assertLessEqual(after.last_step_age_seconds, after.uptime_seconds)
        self.assertGreater(after.retry_after_seconds, 0)

    def test_watch_tells_again_and_again_how_busy_it_is(self):
        busy = self.server.stub.Generate(text_request(max_new_tokens=LONG))
        next(busy)
        watch = self.server.admin.WatchStatus(admin.WatchStatusRequest(interval_seconds=0.1), timeout=HANG_SECONDS)
        seen = [next(watch) for _ in range(3)]
        self.assertLess(seen[0].uptime_seconds, seen[1].uptime_seconds)
        self.assertLess(seen[1].uptime_seconds, seen[2].uptime_seconds)
        list(busy)
        for status in watch:
            if status.throughput.generated_tokens_per_second > 0:
                break
        self.assertGreater(status.throughput.steps_per_second, 0)
        self.assertGreater(status.throughput.window_seconds, 0)
        self.assertGreater(status.roofline.weight_bytes_per_token, 0)
        self.assertGreater(status.roofline.weight_bytes_per_second, 0)
        self.assertLessEqual(status.roofline.step_share, 1)
        watch.cancel()

    def test_expert_load_is_what_the_metrics_say(self):
        generate(self.server, text_request())
        info = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        load = self.server.admin.GetExpertLoad(admin.GetExpertLoadRequest())
        metrics = self.server.metrics()
        self.assertEqual([layer.layer for layer in load.layers], list(info.moe_layers))
        rows = {sum(layer.tokens) for layer in load.layers}
        self.assertEqual(len(rows), 1)
        self.assertEqual(rows.pop() % info.experts_per_token, 0)
        for layer in load.layers:
            self.assertEqual(len(layer.tokens), info.experts)
            self.assertGreaterEqual(layer.imbalance, 1)
            for expert, tokens in enumerate(layer.tokens):
                self.assertIn(f'gatehouse_expert_tokens_total{{expert="{expert}",layer="{layer.layer}"}} {tokens}\n',
                              metrics)
        chosen = info.moe_layers[-1]
        watch = self.server.admin.WatchExpertLoad(admin.WatchExpertLoadRequest(layers=[chosen]), timeout=HANG_SECONDS)
        self.assertEqual([layer.layer for layer in next(watch).layers], [chosen])
        watch.cancel()

    def test_requests_are_listed_and_cancelled_by_id(self):
        requests = [text_request(max_new_tokens=LONG) for _ in range(3)]
        for i, request in enumerate(requests):
            request.request_id = f"call-{i}"
        calls = [self.server.stub.Generate(requests[i]) for i in range(2)]
        for call in calls:
            next(call)
        waiting = self.server.stub.Generate(requests[2])
        listed = {}
        while len(listed) < 3:
            answer = self.server.admin.GetRequests(admin.GetRequestsRequest())
            listed = {request.request_id: request for request in answer.requests}
        self.assertEqual(listed["call-2"].state, admin.ActiveRequest.QUEUED)
        self.assertEqual(listed["call-0"].tenant, "default")
        self.assertEqual(listed["call-0"].mode, pb.Routing.EXACT)
        self.assertGreater(listed["call-0"].prompt_tokens, 0)
        self.assertEqual(listed["call-0"].priority, pb.GenerateRequest.NORMAL)
        self.assertGreater(listed["call-0"].generated_tokens, 0)
        ages = [listed[f"call-{i}"].age_seconds for i in range(3)]
        self.assertEqual(ages[2], min(ages))
        status = self.status()
        self.assertEqual((status.running_requests, status.waiting_requests), (2, 1))
        self.assertEqual(status.waiting_tokens, listed["call-0"].prompt_tokens)
        self.assertGreater(status.kv_blocks_used, 0)
        some = self.server.admin.GetRequests(admin.GetRequestsRequest(max_requests=1))
        self.assertEqual((len(some.requests), some.total), (1, 3))
        self.assertEqual(len(self.server.admin.GetRequests(admin.GetRequestsRequest(tenant="nobody")).requests), 0)
        for i in range(3):
            done = self.server.admin.CancelRequest(admin.CancelRequestRequest(request_id=f"call-{i}"))
            self.assertEqual(done.cancelled, 1)
        for call in (*calls, waiting):
            error = self.assert_fails(Code.CANCELLED, lambda: list(call))
            self.assertIn("operator", error.details())
        self.assert_fails(Code.NOT_FOUND, lambda: self.server.admin.CancelRequest(
            admin.CancelRequestRequest(request_id="call-9")))

    def test_bad_requests_name_the_field(self):
        calls = {
            "interval_seconds": lambda: next(self.server.admin.WatchStatus(
                admin.WatchStatusRequest(interval_seconds=0.01))),
            "layers[1]": lambda: self.server.admin.GetExpertLoad(admin.GetExpertLoadRequest(layers=[0, 99])),
            "layers[0]": lambda: self.server.admin.GetPlacement(admin.GetPlacementRequest(layers=[99])),
            "max_requests": lambda: self.server.admin.GetRequests(admin.GetRequestsRequest(max_requests=0)),
            "request_id": lambda: self.server.admin.CancelRequest(admin.CancelRequestRequest()),
            "seconds": lambda: self.server.admin.Drain(admin.DrainRequest(seconds=-1)),
            "level": lambda: self.server.admin.SetLogLevel(admin.SetLogLevelRequest()),
        }
        for field, call in calls.items():
            with self.subTest(field=field):
                self.assertTrue(self.assert_fails(Code.INVALID_ARGUMENT, call).details().startswith(field + ":"))

    def test_on_one_rank_experts_have_nowhere_to_move(self):
        placement = self.server.admin.GetPlacement(admin.GetPlacementRequest(layers=[2]))
        self.assertEqual((placement.ranks, [layer.layer for layer in placement.layers]), (1, [2]))
        self.assertTrue(all(list(copies.ranks) == [0] for copies in placement.layers[0].experts))
        error = self.assert_fails(Code.FAILED_PRECONDITION, lambda: self.server.admin.Rebalance(admin.RebalanceRequest()))
        self.assertIn("one rank", error.details())
        first = next(iter(self.server.admin.WatchRebalance(admin.WatchRebalanceRequest())))
        self.assertEqual((first.state, first.id), (admin.RebalanceStatus.IDLE, 0))

    def test_the_two_listeners_do_not_serve_each_others_service(self):
        self.assertIn("gatehouse.v1.Admin",
                      ProtoReflectionDescriptorDatabase(self.server.admin_channel).get_services())
        wrong_admin = admin_pb2_grpc.AdminStub(self.server.channel)
        self.assert_fails(Code.UNIMPLEMENTED, lambda: wrong_admin.GetStatus(admin.GetStatusRequest()))
        wrong_inference = inference_pb2_grpc.InferenceStub(self.server.admin_channel)
        self.assert_fails(Code.UNIMPLEMENTED, lambda: wrong_inference.GetModelInfo(pb.GetModelInfoRequest()))

    def test_too_many_watches_are_refused(self):
        watches = [self.server.admin.WatchStatus(admin.WatchStatusRequest()) for _ in range(64)]
        for watch in watches:
            next(watch)
        self.assert_fails(Code.RESOURCE_EXHAUSTED,
                          lambda: next(self.server.admin.WatchStatus(admin.WatchStatusRequest())))
        for watch in watches:
            watch.cancel()


class EndTest(unittest.TestCase):
    def test_drain_lets_requests_end_ends_watches_and_the_process(self):
        with Server() as server:
            watch = server.admin.WatchStatus(admin.WatchStatusRequest(interval_seconds=0.1))
            next(watch)
            call = server.stub.Generate(text_request(max_new_tokens=LONG))
            next(call)
            self.assertEqual(server.admin.Drain(admin.DrainRequest(seconds=60)).open_requests, 1)
            self.assertEqual(len([token.id for event in call for token in event.delta.tokens]), LONG)
            with self.assertRaises(grpc.RpcError) as ended:
                list(watch)
            self.assertEqual(ended.exception.code(), Code.UNAVAILABLE)
            self.assertEqual(server.wait(), 0)

    def test_the_log_level_changes_while_it_serves(self):
        with Server() as server:
            levels = admin.SetLogLevelRequest
            self.assertEqual(server.admin.SetLogLevel(levels(level=levels.WARNING)).previous, levels.INFO)
            quiet = text_request(max_new_tokens=1)
            quiet.request_id = "quiet"
            generate(server, quiet)
            server.admin.SetLogLevel(levels(level=levels.INFO))
            loud = text_request(max_new_tokens=1)
            loud.request_id = "loud"
            generate(server, loud)
            deadline = time.monotonic() + HANG_SECONDS
            while "id=loud" not in server.log() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertIn("id=loud", server.log())
            self.assertNotIn("id=quiet", server.log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
