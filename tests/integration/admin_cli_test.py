"""`gatehouse admin` and `gatehouse top`: output on a pipe and on a terminal, exit codes, the terminal afterwards."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import unittest

import harness
from fakes import FakeAdmin, FakeServer
from gatehouse.v1 import admin_pb2
from harness import HANG_SECONDS


class AdminCliTest(unittest.TestCase):
    def setUp(self):
        self.admin = FakeAdmin()
        self.server = FakeServer(admin=self.admin)
        self.addCleanup(self.server.stop)

    def run_client(self, *words):
        return subprocess.run([harness.program("gatehouse"), *words, "--target", self.server.target],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
                              env={**os.environ, "LC_ALL": "C"})

    def output(self, *words):
        done = self.run_client(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_status(self):
        text = self.output("admin", "status")
        for part in ("SERVING  fake 9.9, up 1 h 02 min", "3 running, 2 waiting", "25 of 100 blocks", "123.4 generated"):
            self.assertIn(part, text)
        status = json.loads(self.output("admin", "status", "--json"))
        self.assertEqual((status["state"], status["running_requests"]), ("SERVING", 3))

    def test_watch_and_top_print_a_line_an_update(self):
        for words, key in ((("admin", "watch"), None), (("top",), "status")):
            with self.subTest(words=words):
                flags = ("--interval", "0.2", "--count", "3")
                lines = self.output(*words, *flags).splitlines()
                self.assertEqual(len(lines), 3)
                for line in lines:
                    self.assertRegex(line, r"^SERVING +running 3  waiting 2 .*kv 25%")
                    self.assertNotIn("\x1b", line)
                lines = [json.loads(line) for line in self.output(*words, *flags, "--json").splitlines()]
                self.assertEqual([(line[key] if key else line)["state"] for line in lines], ["SERVING"] * 3)
        self.assertIn("experts", lines[0])
        self.assertEqual(self.admin.seen["WatchStatusRequest"].interval_seconds, 0.2)

    def test_experts(self):
        text = self.output("admin", "experts")
        self.assertRegex(text, r"(?m)^ +0 +0 +2\.29")  # layer 0, before any token
        self.admin.num_answers = 1
        self.assertRegex(self.output("admin", "experts", "--layer", "1"), r"(?m)^ +3 +4 +57\.14%  #{30}$")
        self.assertEqual(list(self.admin.seen["GetExpertLoadRequest"].layers), [1])
        self.assertEqual(len(json.loads(self.output("admin", "experts", "--json"))["layers"]), 2)

    def test_requests(self):
        text = self.output("admin", "requests", "--tenant", "t", "--max", "1")
        self.assertIn("RUNNING", text)
        self.assertIn("1 min 15 s", text)
        self.assertIn("and 4 more", text)
        self.assertNotIn("\x1b", text)
        seen = self.admin.seen["GetRequestsRequest"]
        self.assertEqual((seen.tenant, seen.max_requests), ("t", 1))

    def test_cancel_drain_and_log_level(self):
        self.assertEqual(self.output("admin", "cancel", "r1"), "cancelled 2\n")
        self.assertEqual(json.loads(self.output("admin", "cancel", "r1", "--json")), {"cancelled": 2})
        done = self.run_client("admin", "cancel", "nobody")
        self.assertEqual(done.returncode, 1)
        self.assertIn("NOT_FOUND", done.stderr)
        self.assertIn("3 requests", self.output("admin", "drain", "--seconds", "5"))
        self.assertEqual(self.admin.seen["DrainRequest"].seconds, 5)
        self.assertEqual(self.output("admin", "log-level", "debug"), "was INFO\n")
        self.assertEqual(self.admin.seen["SetLogLevelRequest"].level, admin_pb2.SetLogLevelRequest.DEBUG)

    def test_top_ends_when_the_server_does(self):
        process = subprocess.Popen([harness.program("gatehouse"), "top", "--interval", "0.2", "--target",
                                    self.server.target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        self.assertIn("SERVING", process.stdout.readline())
        self.server.stop()
        _, stderr = process.communicate(timeout=HANG_SECONDS)
        self.assertEqual(process.returncode, 1)
        self.assertIn(self.server.target, stderr)

    def test_a_reader_that_is_gone_ends_it(self):
        for words in (("top",), ("admin", "watch")):
            process = subprocess.Popen([harness.program("gatehouse"), *words, "--interval", "0.2", "--target",
                                        self.server.target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            self.addCleanup(process.kill)
            process.stdout.readline()
            process.stdout.close()
            self.assertIn(b"the reader of the output is gone", process.stderr.read())
            process.stderr.close()
            self.assertEqual(process.wait(HANG_SECONDS), 1)


class RealServerTest(unittest.TestCase):
    """The same commands on a real server, with work."""

    def setUp(self):
        self.server = harness.Server()
        self.addCleanup(self.server.stop)

    def start(self, *words, target=None):
        process = subprocess.Popen([harness.program("gatehouse"), *words, "--target", target or self.server.ready["admin"]],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        return process

    def answer(self, *words):
        process = self.start(*words, "--json")
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
        self.assertEqual((process.returncode, stderr), (0, ""))
        return [json.loads(line) for line in stdout.splitlines()]

    def start_long(self):
        """A request that cannot end before its output is read on."""
        process = self.start("generate", "It is a truth", "--ignore-eos", "--max-new-tokens", "240", "--top-logprobs", "20",
                             "--json", "--request-id", "r1", target=self.server.target)
        self.assertIn("started", process.stdout.readline())
        return process

    def test_work_is_seen_and_cancelled(self):
        process = self.start_long()
        [requests] = self.answer("admin", "requests")
        self.assertEqual([request["request_id"] for request in requests["requests"]], ["r1"])
        self.assertEqual(self.answer("admin", "cancel", "r1"), [{"cancelled": 1}])
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
        self.assertEqual((process.returncode, stderr.split(":")[1].strip()), (1, "CANCELLED"), stdout[-200:])
        [load] = self.answer("admin", "experts")
        self.assertGreater(sum(int(tokens) for tokens in load["layers"][0]["tokens"]), 0)
        [layer] = self.answer("admin", "experts", "--layer", "2")
        self.assertEqual([one["layer"] for one in layer["layers"]], [2])
        updates = self.answer("top", "--count", "2", "--interval", "0.2")
        self.assertEqual([update["status"]["state"] for update in updates], ["SERVING"] * 2)
        self.assertEqual(len(updates[0]["experts"]["layers"]), len(load["layers"]))
        self.assertEqual([status["state"] for status in self.answer("admin", "watch", "--count", "2", "--interval", "0.2")],
                         ["SERVING"] * 2)

    def test_drain_ends_the_server(self):
        self.assertEqual(self.answer("admin", "log-level", "warning"), [{"previous": "INFO"}])
        self.answer("admin", "drain", "--seconds", "1")
        self.assertEqual(self.server.wait(), 0)


class TerminalTest(unittest.TestCase):
    """`gatehouse top` on a pseudo-terminal."""

    def setUp(self):
        self.admin = FakeAdmin()
        self.server = FakeServer(admin=self.admin)
        self.addCleanup(self.server.stop)

    def start(self, num_rows=24, num_columns=80):
        self.terminal, child_side = pty.openpty()
        self.addCleanup(os.close, self.terminal)
        fcntl.ioctl(child_side, termios.TIOCSWINSZ, struct.pack("HHHH", num_rows, num_columns, 0, 0))
        self.settings = termios.tcgetattr(child_side)
        self.child_side = child_side
        self.addCleanup(os.close, child_side)
        process = subprocess.Popen([harness.program("gatehouse"), "top", "--interval", "0.2", "--target",
                                    self.server.target], stdin=child_side, stdout=child_side, stderr=child_side,
                                   env={**os.environ, "LC_ALL": "C.UTF-8"}, start_new_session=True)
        self.addCleanup(process.kill)
        return process

    def read_until(self, wanted):
        text = b""
        while wanted not in text:
            ready, _, _ = select.select([self.terminal], [], [], HANG_SECONDS)
            self.assertTrue(ready, f"{wanted} did not come:\n{text[-2000:]}")
            text += os.read(self.terminal, 65536)
        return text

    def assert_restored(self, process, code):
        text = self.read_until(b"\x1b[?1049l")
        self.assertIn(b"\x1b[?25h", text)  # the cursor is back
        self.assertEqual(process.wait(HANG_SECONDS), code)
        self.assertEqual(termios.tcgetattr(self.child_side), self.settings)

    def test_q_gives_the_terminal_back(self):
        process = self.start()
        text = self.read_until("▂▂ ▄▄ ██".encode())
        self.assertIn(b"\x1b[?1049h", text)
        self.assertIn(b"3 running", text)
        self.assertNotEqual(termios.tcgetattr(self.child_side), self.settings)
        os.write(self.terminal, b"q")
        self.assert_restored(process, 0)

    def test_signals_give_the_terminal_back(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number=number):
                process = self.start()
                self.read_until(b"3 running")
                process.send_signal(number)
                self.assert_restored(process, 130)

    def test_a_narrow_terminal_gets_narrow_lines(self):
        process = self.start(num_rows=8, num_columns=30)
        frame = self.read_until(b"\x1b[J").decode()
        frame = frame[frame.index("\x1b[H") + 3:frame.index("\x1b[J")]
        lines = [line.replace("\x1b[K", "").rstrip("\r") for line in frame.split("\n")]
        self.assertLessEqual(len(lines), 8)
        self.assertLessEqual(max(map(len, lines)), 30)
        os.write(self.terminal, b"q")
        self.assert_restored(process, 0)

    def test_it_survives_a_server_that_goes(self):
        process = self.start()
        self.read_until(b"3 running")
        self.server.stop()
        self.read_until(b"! no answer, trying again: UNAVAILABLE")
        os.write(self.terminal, b"q")
        self.assert_restored(process, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
