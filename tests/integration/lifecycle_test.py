"""Start, cancel, deadline, slow readers, full queues, health, drain: how requests and servers end."""
import concurrent.futures
import os
import queue
import signal
import subprocess
import threading
import unittest
import unittest.mock

import grpc
from gatehouse.v1 import admin_pb2, inference_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import harness
from harness import DEMO_MODEL, HANG_SECONDS, Server, ServerTest, error_detail, generate, text_request

LONG = 240  # tokens: nearly the demo model's context


def sample(server, family):
    """Sum over the samples named `family`."""
    total = 0.0
    for line in server.metrics().splitlines():
        if line.startswith((family + "{", family + " ")):
            total += float(line.rsplit(" ", 1)[1])
    return total


def wait_for(condition, what):
    """Polls `condition`; a hang becomes a failure."""
    for _ in range(HANG_SECONDS * 50):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"gave up waiting until {what}")


class EndTest(ServerTest):
    def assert_idle(self):
        wait_for(lambda: sample(self.server, "gatehouse_requests_running") == 0, "no request runs")
        wait_for(lambda: sample(self.server, "gatehouse_requests_waiting") == 0, "no request waits")

    def test_cancel_ends_the_request_in_the_engine(self):
        call = self.server.stub.Generate(text_request(max_new_tokens=LONG))
        next(call)
        call.cancel()
        self.assertEqual(call.code(), grpc.StatusCode.CANCELLED)
        self.assert_idle()

    def test_deadline_ends_the_request_in_the_engine(self):
        calls = [self.server.stub.Generate(text_request(max_new_tokens=LONG), timeout=0.05) for _ in range(8)]
        codes = []
        for call in calls:
            try:
                list(call)
            except grpc.RpcError as error:
                codes.append(error.code())
        # Eight texts of 240 tokens do not fit into 50 ms on any machine that this model is served from.
        self.assertIn(grpc.StatusCode.DEADLINE_EXCEEDED, codes)
        self.assertEqual(set(codes), {grpc.StatusCode.DEADLINE_EXCEEDED})
        self.assert_idle()

    def test_a_slow_reader_gets_everything_in_the_end(self):
        call = self.server.stub.Generate(text_request(max_new_tokens=64))
        next(call)
        # Others are served while this one reads nothing.
        self.assertEqual(len(generate(self.server, text_request()).ids), 16)
        self.assert_idle()
        ids = [token.id for event in call for token in event.delta.tokens]
        self.assertEqual(ids, generate(self.server, text_request(max_new_tokens=64)).ids)

    def test_a_closed_connection_ends_its_requests(self):
        channel = grpc.insecure_channel(self.server.target)
        stub = harness.inference_pb2_grpc.InferenceStub(channel)
        next(stub.Generate(text_request(max_new_tokens=LONG)))
        channel.close()
        self.assert_idle()


class QueueTest(ServerTest):
    FLAGS = ("--max-sequences", "1", "--max-queued-requests", "1")

    def test_a_full_queue_refuses_with_retry_info_and_serves_the_rest(self):
        def run(_):
            try:
                return len(generate(self.server, text_request(max_new_tokens=LONG)).ids)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, error.details())
                retry = error_detail(error, error_details_pb2.RetryInfo)
                self.assertIsNotNone(retry)
                self.assertGreater(retry.retry_delay.ToTimedelta().total_seconds(), 0)
                return 0

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            counts = list(pool.map(run, range(12)))
        self.assertEqual(set(counts), {0, LONG})


class HealthTest(unittest.TestCase):
    def test_watch_sees_the_drain_and_a_running_request_may_finish(self):
        with Server() as server:
            health = health_pb2_grpc.HealthStub(server.channel)
            for service in ("", "gatehouse.v1.Inference"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=service))
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, service)
            with self.assertRaises(grpc.RpcError) as unknown:
                health.Check(health_pb2.HealthCheckRequest(service="nobody"))
            self.assertEqual(unknown.exception.code(), grpc.StatusCode.NOT_FOUND)

            states = queue.Queue()
            watch = health.Watch(health_pb2.HealthCheckRequest(service="gatehouse.v1.Inference"))

            def follow():
                try:
                    for answer in watch:
                        states.put(answer.status)
                except grpc.RpcError:
                    pass  # the server goes

            threading.Thread(target=follow, daemon=True).start()
            self.assertEqual(states.get(timeout=HANG_SECONDS), health_pb2.HealthCheckResponse.SERVING)
            call = server.stub.Generate(text_request(max_new_tokens=LONG))
            next(call)
            server.signal(signal.SIGTERM)
            self.assertEqual(states.get(timeout=HANG_SECONDS), health_pb2.HealthCheckResponse.NOT_SERVING)
            ids = [token.id for event in call for token in event.delta.tokens]
            self.assertEqual(len(ids), LONG)
            self.assertEqual(server.wait(), 0)

    def test_a_drain_without_time_ends_requests_with_unavailable(self):
        with Server("--drain-seconds", "0") as server:
            calls = [server.stub.Generate(text_request(max_new_tokens=LONG)) for _ in range(8)]
            for call in calls:
                next(call)
            server.signal(signal.SIGTERM)
            codes = set()
            for call in calls:
                try:
                    list(call)
                except grpc.RpcError as error:
                    codes.add(error.code())
            self.assertEqual(codes, {grpc.StatusCode.UNAVAILABLE})
            self.assertEqual(server.wait(), 0)


class OperatorsDrainTest(unittest.TestCase):
    """A drain of an hour, by an operator, with work for many seconds."""

    def start(self, *flags):
        server = Server("--max-sequences", "1", *flags)
        self.addCleanup(server.stop)
        calls = [server.stub.Generate(text_request(max_new_tokens=LONG)) for _ in range(100)]
        wait_for(lambda: sample(server, "gatehouse_requests_waiting") == 99, "all others wait for one")
        server.admin.Drain(admin_pb2.DrainRequest(seconds=3600))
        wait_for(lambda: "draining" in server.log(), "it drains")
        return server, calls

    def codes(self, calls):
        codes = set()
        for call in calls:
            try:
                list(call)  # whoever does not read is never told of the end
            except grpc.RpcError:
                pass
            codes.add(call.code())
        return codes

    def test_a_signal_hurries_it(self):
        server, calls = self.start("--drain-seconds", "0")
        server.signal(signal.SIGTERM)
        self.assertIn(grpc.StatusCode.UNAVAILABLE, self.codes(calls))
        self.assertEqual(server.wait(), 0)

    def test_a_later_request_ends_it_earlier_but_never_later(self):
        server, calls = self.start()
        server.admin.Drain(admin_pb2.DrainRequest(seconds=7200))
        server.admin.Drain(admin_pb2.DrainRequest(seconds=0))
        self.assertIn(grpc.StatusCode.UNAVAILABLE, self.codes(calls))
        self.assertEqual(server.wait(), 0)

    def test_a_second_signal_ends_the_process_at_once(self):
        server, _ = self.start("--drain-seconds", "3600")
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        self.assertEqual(server.wait(), 1)


class SignalTest(unittest.TestCase):
    def test_other_signals_change_nothing(self):
        with Server() as server:
            server.signal(signal.SIGHUP)
            server.signal(signal.SIGUSR2)
            self.assertEqual(len(generate(server, text_request()).ids), 16)
            server.signal(signal.SIGTERM)
            self.assertEqual(server.wait(), 0)


class StartTest(unittest.TestCase):
    def run_server(self, *flags):
        """Runs a server that must not come up; returns its exit code and standard error."""
        done = subprocess.run([harness.program("gatehouse-server"), *flags], capture_output=True, text=True,
                              timeout=HANG_SECONDS, stdin=subprocess.DEVNULL, check=False)
        return done.returncode, done.stderr

    def test_a_second_server_on_the_same_port_fails(self):
        with Server() as server:
            code, text = self.run_server("--model", str(DEMO_MODEL), "--listen", server.target,
                                         "--metrics-listen", "127.0.0.1:0")
            self.assertEqual(code, 1, text)
            self.assertIn(server.target, text)
            self.assertEqual(len(generate(server, text_request()).ids), 16)

    def test_bad_flags_exit_with_2(self):
        self.assertEqual(self.run_server("--model", str(DEMO_MODEL), "--max-sequences", "0")[0], 2)
        self.assertEqual(self.run_server("--no-such-flag")[0], 2)
        self.assertEqual(self.run_server("--model", str(DEMO_MODEL), "--listen", "0.0.0.0:0")[0], 2)

    def test_an_instruction_set_is_forced_by_the_environment_or_refused_with_what_there_is(self):
        with unittest.mock.patch.dict(os.environ, GATEHOUSE_ISA="avx9"):
            code, text = self.run_server("--model", str(DEMO_MODEL))
        self.assertEqual(code, 2, text)
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertIn('"avx9"', text)
        with Server() as server:
            best = server.stub.GetServerInfo(inference_pb2.GetServerInfoRequest()).isa
            expected = generate(server, text_request())
        self.assertIn(best, text)
        with unittest.mock.patch.dict(os.environ, GATEHOUSE_ISA="portable"), Server() as server:
            self.assertEqual(server.stub.GetServerInfo(inference_pb2.GetServerInfoRequest()).isa, "portable")
            self.assertEqual(generate(server, text_request()).ids, expected.ids)

    def test_a_model_that_cannot_be_loaded_exits_with_3_and_one_line(self):
        code, text = self.run_server("--model", "/nonexistent", "--listen", "127.0.0.1:0",
                                     "--metrics-listen", "127.0.0.1:0")
        self.assertEqual(code, 3, text)
        self.assertIn("/nonexistent", text)

    def test_check_prints_the_plan_and_serves_nothing(self):
        done = subprocess.run([harness.program("gatehouse-server"), "--model", str(DEMO_MODEL), "--check"],
                              capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("KV", done.stdout + done.stderr)

    def test_reflection_lists_the_services(self):
        with Server() as server:
            services = set(ProtoReflectionDescriptorDatabase(server.channel).get_services())
            self.assertLessEqual({"gatehouse.v1.Inference", "grpc.health.v1.Health"}, services)


if __name__ == "__main__":
    unittest.main(verbosity=2)
