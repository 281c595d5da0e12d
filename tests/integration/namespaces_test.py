"""Ranks on hosts of their own, as network namespaces with real links: one that is cut off, one behind a slow line.

Needs root and `ip netns`; elsewhere integration.workers does what processes on 127.0.0.x can show.
"""
import concurrent.futures
import contextlib
import os
import subprocess
import sys
import time
import unittest

from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb

from deployment import Worker, answers_alone, answers_at_once, free_port, request_of, wait_until
from harness import Server

NUM_WORKERS = 2
NET = f"10.213.{os.getpid() % 250}"


def run(*words):
    subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class Hosts:
    """Namespaces on one bridge, whose end in this namespace is NET.1; host i is NET.(2 + i)."""

    def __init__(self, count):
        self.names = [f"gh{os.getpid()}h{i}" for i in range(count)]
        bridge = f"ghb{os.getpid()}"
        with contextlib.ExitStack() as undo:
            run("ip", "link", "add", bridge, "type", "bridge")
            undo.callback(run, "ip", "link", "del", bridge)
            run("ip", "address", "add", f"{NET}.1/24", "dev", bridge)
            run("ip", "link", "set", bridge, "up")
            for i, name in enumerate(self.names):
                run("ip", "netns", "add", name)
                undo.callback(run, "ip", "netns", "del", name)  # the link goes with it
                run("ip", "link", "add", self.link(i), "type", "veth", "peer", "name", "eth0", "netns", name)
                run("ip", "link", "set", self.link(i), "master", bridge, "up")
                for words in (("address", "add", f"{self.address(i)}/24", "dev", "eth0"), ("link", "set", "lo", "up"),
                              ("link", "set", "eth0", "up")):
                    run("ip", "-n", name, *words)
            self._check_line(self.within(0), (), f"{NET}.1")
            self._check_line(self.within(0), self.within(1), self.address(1))
            self._undo = undo.pop_all()

    @staticmethod
    def _check_line(from_host, to_host, address):
        """Where a firewall stands between, hosts there are but no network."""
        listen = ("import socket, sys; listener = socket.create_server((sys.argv[1], 40404)); print(flush=True); "
                  "listener.settimeout(5); listener.accept()")
        connect = "import socket, sys; socket.create_connection((sys.argv[1], 40404), 3)"
        with subprocess.Popen([*to_host, sys.executable, "-c", listen, address], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as listener:
            listener.stdout.readline()
            run(*from_host, sys.executable, "-c", connect, address)

    def within(self, i):
        return "ip", "netns", "exec", self.names[i]

    def link(self, i):
        return f"gv{os.getpid() % 100000}h{i}"

    @staticmethod
    def address(i):
        return f"{NET}.{2 + i}"

    def end(self):
        self._undo.close()


class NamespacesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.hosts = Hosts(NUM_WORKERS)
        except (OSError, subprocess.CalledProcessError) as error:
            raise unittest.SkipTest(f"no network namespaces: {getattr(error, 'stderr', error)}") from None
        cls.addClassCleanup(cls.hosts.end)
        cls.requests = [request_of(pb.Routing.EXACT, seed, num_tokens=120, max_new_tokens=40) for seed in range(24)]
        with Server() as one:
            cls.expected = answers_alone(one, cls.requests)
        cls.join = f"{NET}.1:{free_port()}"
        cls.workers = [cls.start_worker(i) for i in range(NUM_WORKERS)]
        cls.server = cls.enterClassContext(Server("--workers", str(NUM_WORKERS), "--worker-listen", cls.join,
                                                  "--worker-address", f"{NET}.1", "--threads", "1", "--insecure"))

    @classmethod
    def start_worker(cls, i):
        worker = Worker(cls.join, "--worker-address", cls.hosts.address(i), "--insecure",
                        within=cls.hosts.within(i))
        cls.addClassCleanup(worker.end)
        return worker

    def status(self):
        return self.server.admin.GetStatus(admin.GetStatusRequest())

    def wait_for_ranks(self, count):
        wait_until(lambda: sum(rank.serving for rank in self.status().ranks) == count,
                   lambda: f"not {count} ranks:\n{self.status()}\n{self.server.log()}")

    def setUp(self):
        self.wait_for_ranks(1 + NUM_WORKERS)

    def run_while(self, disturb):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(answers_at_once, self.server, self.requests, 8)
            disturb()
            self.assertEqual(answers.result(), self.expected)

    def test_answers_are_those_of_one_host(self):
        self.run_while(lambda: None)

    def test_a_host_that_is_cut_off_is_lost_and_its_next_worker_joins(self):
        epoch = self.status().epoch

        def cut_off():
            time.sleep(0.3)
            run("ip", "link", "set", self.hosts.link(1), "down")
            self.addCleanup(run, "ip", "link", "set", self.hosts.link(1), "up")
            self.wait_for_ranks(NUM_WORKERS)

        self.run_while(cut_off)
        self.assertIn("is lost", self.status().degraded[0])
        self.assertEqual(self.workers[1].wait(), 1, "from there, the server is gone")
        self.workers[1] = self.start_worker(1)  # as whatever looks after it would
        self.workers[1].wait_for_line("waiting for the first rank")
        run("ip", "link", "set", self.hosts.link(1), "up")
        self.wait_for_ranks(1 + NUM_WORKERS)
        self.assertGreaterEqual(self.status().epoch, epoch + 2)
        self.run_while(lambda: None)

    def test_a_slow_line_that_loses_packets_changes_nothing(self):
        try:
            run("tc", "qdisc", "add", "dev", self.hosts.link(0), "root", "netem", "delay", "5ms", "loss", "2%")
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"no netem: {getattr(error, 'stderr', error)}")
        self.addCleanup(run, "tc", "qdisc", "del", "dev", self.hosts.link(0), "root")
        few = slice(0, 4)
        self.assertEqual(answers_at_once(self.server, self.requests[few]), self.expected[few])


if __name__ == "__main__":
    unittest.main(verbosity=2)
