"""A server with ranks in other processes, as several tests start it, and requests whose answers are compared."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import socket
import subprocess
import tempfile
import time

from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb

from harness import DEMO_MODEL, HANG_SECONDS, Server, generate, program


def free_port():
    """Not of those that the system gives to whoever asks for any: nobody else takes it meanwhile."""
    while True:
        port = random.randrange(20000, 30000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(what, describe):
    deadline = time.monotonic() + HANG_SECONDS
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(describe())
        time.sleep(0.02)


class Worker:
    """A process that joins, run by the command `within`; end() kills it."""

    def __init__(self, join, *flags, model=DEMO_MODEL, isa=None, within=()):
        self._folder = tempfile.TemporaryDirectory()
        self.ready_file = pathlib.Path(self._folder.name) / "ready.json"
        self._log = open(pathlib.Path(self._folder.name) / "log", "w+")
        self.process = subprocess.Popen(
            [*within, program("gatehouse-server"), "--role", "worker", "--join", join, "--model", str(model), "--threads", "1",
             "--ready-file", str(self.ready_file), *flags],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            env={**os.environ, "GATEHOUSE_ISA": isa} if isa else None)

    def log(self):
        return pathlib.Path(self._log.name).read_text()

    def wait(self):
        return self.process.wait(timeout=HANG_SECONDS)

    def wait_for_line(self, text, times=1):
        wait_until(lambda: self.log().count(text) >= times, lambda: f"no {text!r} in:\n{self.log()}")

    def end(self):
        self.process.kill()
        self.process.wait()
        self._log.close()
        self._folder.cleanup()


class Deployment:
    """Workers that wait for their server, and the server."""

    def __init__(self, num_workers, *flags, model=DEMO_MODEL):
        self._stack = contextlib.ExitStack()
        self.join = f"127.0.0.1:{free_port()}"
        self.flags = ("--workers", str(num_workers), "--worker-listen", self.join, "--threads", "1", *flags)
        try:
            # Each on an address of its own, as hosts are; one of them has an old CPU.
            self.workers = [self.add_worker("--worker-address", f"127.0.0.{2 + i}", model=model,
                                            isa="portable" if i == 1 else None) for i in range(num_workers)]
            for worker in self.workers:
                worker.wait_for_line("waiting for the first rank")
            self.server = self._stack.enter_context(Server(*self.flags, model=model))
        except BaseException:
            self._stack.close()
            raise

    def add_worker(self, *flags, **more):
        worker = Worker(self.join, *flags, **more)
        self._stack.callback(worker.end)
        return worker

    def worker_of(self, rank):
        return next(w for w in self.workers if json.loads(w.ready_file.read_text())["rank"] == rank)

    def serving(self):
        return [rank.serving for rank in self.server.admin.GetStatus(admin.GetStatusRequest()).ranks]

    def wait_for_ranks(self, serving):
        wait_until(lambda: self.serving() == serving, lambda: f"ranks {self.serving()}, not {serving}\n{self.server.log()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()


def request_of(mode, seed, num_tokens=70, max_new_tokens=10):
    # Ids that the smallest checkpoint has, too.
    ids = [5 + (seed * 7919 + i * i * 31 + i * 17) % 80 for i in range(num_tokens)]
    return pb.GenerateRequest(
        tokens=pb.TokenIds(ids=ids), routing=pb.Routing(mode=mode),
        sampling=pb.Sampling(temperature=0.9 if seed % 2 else 0, seed=seed, top_p=0.95),
        stop=pb.Stop(max_new_tokens=max_new_tokens, ignore_eos=True),
        output=pb.Output(top_logprobs=3, prompt_logprobs=0, routed_experts=True))


def bits(answer):
    return [token.SerializeToString() for token in answer.prompt_tokens + answer.tokens]


def answers_alone(server, requests):
    return [bits(generate(server, request)) for request in requests]


def answers_at_once(server, requests, num_clients=6):
    with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
        return list(pool.map(lambda request: bits(generate(server, request)), requests))
