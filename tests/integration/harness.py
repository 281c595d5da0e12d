"""A real gatehouse-server for a test module, and short ways to talk to it.

Waits are on events (the ready file, a line, the end of a process), never on time; the limits below only turn a hang
into a failure.
"""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

import grpc
from gatehouse.v1 import admin_pb2_grpc
from gatehouse.v1 import inference_pb2 as pb
from gatehouse.v1 import inference_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

BIN_DIR = pathlib.Path(os.environ["GATEHOUSE_BIN_DIR"])
DEMO_MODEL = pathlib.Path(os.environ["GATEHOUSE_MODEL"])
HANG_SECONDS = 60
KEEPS_FREED_MEMORY = BIN_DIR.parent.name == "asan"  # for a while: what a process holds then says nothing
DETAILS_KEY = "grpc-status-details-bin"


def program(name):
    path = BIN_DIR / name
    if not path.exists():
        raise unittest.TestCase.failureException(f"{path} is not built")
    return str(path)


class Server:
    """Starts on construction; `with Server() as server`, or stop()."""

    def __init__(self, *flags, model=DEMO_MODEL, listen="127.0.0.1:0", admin_listen="127.0.0.1:0"):
        self._folder = tempfile.TemporaryDirectory()
        self._ready_file = pathlib.Path(self._folder.name) / "ready.json"
        self._log = open(pathlib.Path(self._folder.name) / "log", "w+")
        self.process = subprocess.Popen(
            [program("gatehouse-server"), "--model", str(model), "--listen", listen, "--metrics-listen", "127.0.0.1:0",
             "--admin-listen", admin_listen, "--ready-file", str(self._ready_file), *flags],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)
        self.ready = self._wait_until_ready()
        self.target = self.ready["listen"]
        self.channel = grpc.insecure_channel(self.target)
        self.stub = inference_pb2_grpc.InferenceStub(self.channel)
        self.admin_channel = grpc.insecure_channel(self.ready["admin"])
        self.admin = admin_pb2_grpc.AdminStub(self.admin_channel)

    def _wait_until_ready(self):
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline:
            if self._ready_file.exists():
                return json.loads(self._ready_file.read_text())
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            time.sleep(0.01)
        self.process.kill()
        raise AssertionError(f"the server was not ready after {HANG_SECONDS} s:\n{self.log()}")

    def log(self):
        self._log.flush()
        return pathlib.Path(self._log.name).read_text()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(timeout=HANG_SECONDS)

    def stop(self):
        """SIGTERM, unless it has ended; returns the exit code."""
        self.channel.close()
        self.admin_channel.close()
        if self.process.poll() is None:
            self.signal()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end after SIGTERM:\n{self.log()}") from None
        finally:
            self._log.close()
            self._folder.cleanup()

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.ready['metrics']}/metrics", timeout=HANG_SECONDS) as response:
            return response.read().decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class ServerTest(unittest.TestCase):
    """A test case with one server for the class."""

    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS)
        cls.addClassCleanup(cls.stop_server)

    @classmethod
    def stop_server(cls):
        code = cls.server.stop()
        if code != 0:
            raise AssertionError(f"the server ended with {code}")

    def assert_fails(self, code, call):
        """`call` must fail with `code`; returns the error."""
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception


def text_request(text="It is a truth universally acknowledged, that", **stop):
    """Greedy, so that it repeats; the demo model runs to max_new_tokens."""
    stop = {"max_new_tokens": 16, "ignore_eos": True, **stop}
    return pb.GenerateRequest(text=text, sampling=pb.Sampling(temperature=0), stop=pb.Stop(**stop))


class Answer:
    """All events of one stream, taken apart."""

    def __init__(self, events):
        self.events = list(events)
        self.kinds = [event.WhichOneof("event") for event in self.events]
        deltas = [event.delta for event in self.events if event.HasField("delta")]
        self.started = self.events[0].started
        self.text = "".join(delta.text for delta in deltas)
        self.tokens = [token for delta in deltas for token in delta.tokens]
        self.ids = [token.id for token in self.tokens]
        self.prompt_tokens = [token for event in self.events for token in event.prompt.tokens]
        self.prompt_positions = [event.prompt.first_position for event in self.events if event.HasField("prompt")]
        self.finished = self.events[-1].finished


def generate(server, request, timeout=HANG_SECONDS, **kwargs):
    return Answer(server.stub.Generate(request, timeout=timeout, **kwargs))


def error_detail(error, kind):
    """The google.rpc detail of class `kind` in an error, or None."""
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            message = kind()
            if detail.Unpack(message):
                return message
    return None


def violated_fields(error):
    bad_request = error_detail(error, error_details_pb2.BadRequest)
    return [violation.field for violation in bad_request.field_violations] if bad_request else []
