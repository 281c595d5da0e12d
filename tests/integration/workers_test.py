"""Ranks in other processes: the answers of one server, who may join, and ranks that are killed or stopped."""
import concurrent.futures
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb

from certificates import Authority
from deployment import Deployment, Worker, answers_alone, answers_at_once, free_port, request_of, wait_until
from harness import DEMO_MODEL, Server, program

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
SECRET = "00112233445566778899aabbccddeeff\n"
BLOCKED = admin.BoundedRouting(policy="locmoe_plus", isolation=admin.BoundedRouting.BLOCK_CAUSAL, expert_factor=1,
                               block_tokens=32, exempt_layers=admin.LayerList())
# Of logical devices, not of ranks.
TIGHT = admin.BoundedRouting(policy="device_bound", device_factor=0.75, min_mean_load=0, reroute=2, force=True,
                             exempt_layers=admin.LayerList())


def set_policy(server):
    policy = admin.RoutingPolicy(isolated=BLOCKED, shared=TIGHT, devices=admin.ExpertDevices(count=4))
    server.admin.SetRoutingPolicy(admin.SetRoutingPolicyRequest(policy=policy))


class AnswersTest(unittest.TestCase):
    def check(self, num_workers, model, *more_flags):
        with tempfile.NamedTemporaryFile("w") as secret:
            secret.write(SECRET)
            secret.flush()
            flags = ("--routing-secret-file", secret.name)
            modes = [pb.Routing.EXACT, pb.Routing.ISOLATED]
            together = [request_of(mode, seed) for seed in range(5) for mode in modes]
            shared = [request_of(pb.Routing.SHARED, seed) for seed in range(3)]
            with Server(*flags, model=model) as one:
                set_policy(one)
                expected = answers_alone(one, together), answers_alone(one, shared)
            with Deployment(num_workers, *flags, *more_flags, model=model) as deployment:
                self.assertEqual(deployment.serving(), [True] * (1 + num_workers))
                set_policy(deployment.server)
                self.assertEqual(answers_at_once(deployment.server, together), expected[0])
                self.assertEqual(answers_alone(deployment.server, shared), expected[1])
                self.assertGreater(deployment.server.metrics().count("gatehouse_rank_wait_seconds_total{"), num_workers)

    def test_one_worker_while_gates_are_recorded(self):
        with tempfile.NamedTemporaryFile() as trace:
            self.check(1, DEMO_MODEL, "--record-routes", trace.name)
            self.assertGreater(pathlib.Path(trace.name).stat().st_size, 10000)

    def test_three_workers(self):
        self.check(3, DEMO_MODEL)

    def test_a_golden_checkpoint(self):
        self.check(2, GOLDEN / "odd_bf16")


class JoiningTest(unittest.TestCase):
    """Of a server that waits for a worker: whoever does not fit is told why, and the one that fits makes it serve."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.join = f"127.0.0.1:{free_port()}"

    def enterContext(self, context):  # of unittest from Python 3.11 on
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def start_server(self, *flags):
        self.ready_file = self.folder / "server.json"
        self.server = subprocess.Popen(
            [program("gatehouse-server"), "--model", str(DEMO_MODEL), "--listen", "127.0.0.1:0", "--metrics-listen", "",
             "--admin-listen", "", "--workers", "1", "--worker-listen", self.join, "--threads", "1",
             "--ready-file", str(self.ready_file), *flags], stderr=subprocess.DEVNULL)
        self.addCleanup(self.server.wait)
        self.addCleanup(self.server.kill)

    def worker(self, *flags, model=DEMO_MODEL):
        worker = Worker(self.join, *flags, model=model)
        self.addCleanup(worker.end)
        return worker

    def assert_refused(self, worker, code, *fragments):
        self.assertEqual(worker.wait(), code, worker.log())
        last = worker.log().splitlines()[-1]
        for fragment in fragments:
            self.assertIn(fragment, last)
        self.assertFalse(worker.ready_file.exists())
        self.assertFalse(self.ready_file.exists())

    def test_another_model_is_refused_by_name(self):
        self.start_server()
        self.assert_refused(self.worker(model=GOLDEN / "odd_bf16"), 3,
                            "odd_bf16 is not the model of the deployment's server", "the model has 128")
        changed = self.folder / "changed"
        shutil.copytree(DEMO_MODEL, changed)
        weights = bytearray((changed / "model.safetensors").read_bytes())
        weights[-64:] = bytes(64)
        (changed / "model.safetensors").write_bytes(weights)
        self.assert_refused(self.worker(model=changed), 3, "model hash: got", "the deployment's server has")
        right = self.worker()
        wait_until(self.ready_file.exists, right.log)
        self.assertEqual(json.loads(right.ready_file.read_text())["rank"], 1)

    def test_a_wrong_token_is_refused(self):
        tokens = {}
        for name in "right", "wrong":
            tokens[name] = self.folder / name
            tokens[name].write_text(f"{name}-token-of-the-deployment\n")
        self.start_server("--deployment-token-file", str(tokens["right"]))
        sentence = "does not hold a token of the deployment"
        self.assert_refused(self.worker(), 2, sentence)
        self.assert_refused(self.worker("--deployment-token-file", str(tokens["wrong"])), 2, sentence)
        right = self.worker("--deployment-token-file", str(tokens["right"]))
        wait_until(self.ready_file.exists, right.log)

    def test_ranks_show_each_other_their_certificates(self):
        ours, others = (Authority(self.folder, name) for name in ("ours", "others"))

        def flags(authority, name):
            certificate, key = authority.sign(name)
            return "--tls-cert", str(certificate), "--tls-key", str(key), "--deployment-ca", str(authority.certificate)

        self.start_server(*flags(ours, "server"))
        self.join = self.join.replace("127.0.0.1", "localhost")  # as certificates name it
        strangers = [self.worker(*flags(others, "stranger")), self.worker()]
        right = self.worker(*flags(ours, "worker"))
        wait_until(self.ready_file.exists, right.log)
        for stranger in strangers:
            self.assertFalse(stranger.ready_file.exists())

    def test_one_too_many_waits_until_there_is_room(self):
        self.start_server()
        first = self.worker()
        wait_until(self.ready_file.exists, first.log)
        second = self.worker()
        second.wait_for_line("all 1 workers of the deployment are there")
        first.process.send_signal(signal.SIGTERM)
        self.assertEqual(first.wait(), 0, first.log())
        self.assertFalse(first.ready_file.exists())
        wait_until(second.ready_file.exists, second.log)

    def test_one_that_waits_ends_when_it_is_asked_to(self):
        worker = self.worker()
        worker.wait_for_line("waiting for the first rank")
        time.sleep(0.2)  # it is in the call
        worker.process.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(), 0, worker.log())

    def test_workers_end_with_1_when_the_server_is_killed_or_stopped(self):
        for number in signal.SIGKILL, signal.SIGSTOP:
            with self.subTest(signal=number):
                self.start_server()
                worker = self.worker()
                wait_until(self.ready_file.exists, worker.log)
                self.server.send_signal(number)
                self.assertEqual(worker.wait(), 1, worker.log())
                self.assertIn(f"the first rank at {self.join} is gone", worker.log())
                self.server.kill()
                self.server.wait()
                self.ready_file.unlink()


class LostRanksTest(unittest.TestCase):
    """Requests go on while ranks are killed and stopped, and all answers are those of one server."""

    @classmethod
    def setUpClass(cls):
        cls.requests = [request_of(pb.Routing.EXACT, seed, num_tokens=120, max_new_tokens=60) for seed in range(24)]
        with Server() as one:
            cls.expected = answers_alone(one, cls.requests)
        cls.deployment = Deployment(2)
        cls.addClassCleanup(cls.deployment.__exit__)

    def run_while(self, disturb):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(answers_at_once, self.deployment.server, self.requests, 8)
            disturb()
            self.assertEqual(answers.result(), self.expected)

    def test_a_worker_is_killed_and_another_takes_its_place(self):
        self.deployment.wait_for_ranks([True] * 3)
        victim = self.deployment.worker_of(1)

        def kill():
            time.sleep(0.3)
            victim.process.kill()
            self.deployment.wait_for_ranks([True, False, True])
            self.deployment.workers.remove(victim)
            self.deployment.workers.append(self.deployment.add_worker())

        self.run_while(kill)
        self.deployment.wait_for_ranks([True] * 3)
        self.assertEqual(answers_at_once(self.deployment.server, self.requests), self.expected)

    def test_a_worker_is_stopped_and_comes_back_empty(self):
        self.deployment.wait_for_ranks([True] * 3)
        victim = self.deployment.worker_of(2)

        def stop():
            time.sleep(0.3)
            victim.process.send_signal(signal.SIGSTOP)
            try:
                self.deployment.wait_for_ranks([True, True, False])
            finally:
                victim.process.send_signal(signal.SIGCONT)

        self.run_while(stop)
        victim.wait_for_line("rank 2 was silent for 2 s and is lost")
        self.deployment.wait_for_ranks([True] * 3)
        self.assertEqual(answers_at_once(self.deployment.server, self.requests), self.expected)


if __name__ == "__main__":
    unittest.main()
