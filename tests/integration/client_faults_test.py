"""`gatehouse` against servers that are busy, die, lie, or want to know who is calling."""
import os
import socket
import subprocess
import tempfile
import threading
import unittest

import grpc
import harness
from fakes import Certificates, FakeAdmin, FakeInference, FakeServer
from harness import HANG_SECONDS


def run(*words, target, **variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GATEHOUSE_TO")}
    environment.update(variables)
    return subprocess.run([harness.program("gatehouse"), *words, "--target", target], env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)


class BusyServerTest(unittest.TestCase):
    def setUp(self):
        self.inference = FakeInference()
        self.server = FakeServer(inference=self.inference)
        self.addCleanup(self.server.stop)

    def test_a_refusal_is_waited_for_and_told(self):
        done = run("generate", "busy", target=self.server.target)
        self.assertEqual((done.returncode, done.stdout), (0, "fine"))
        self.assertEqual(self.inference.num_requests, 3)
        self.assertEqual(done.stderr.count("RESOURCE_EXHAUSTED: the queue is full; trying again in"), 2)

    def test_retries_can_be_switched_off(self):
        done = run("generate", "busy", "--retries", "0", target=self.server.target)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(self.inference.num_requests, 1)
        self.assertIn("RESOURCE_EXHAUSTED: the queue is full\n  try again in 0.5 s", done.stderr)

    def test_text_that_was_shown_is_not_asked_for_again(self):
        done = run("generate", "torn", target=self.server.target)
        self.assertEqual((done.returncode, done.stdout), (1, "fine"))
        self.assertEqual(self.inference.num_requests, 1)
        self.assertIn("UNAVAILABLE: a rank is lost", done.stderr)

    def test_the_other_listener_is_named(self):
        done = run("admin", "status", target=self.server.target)
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.server.target, done.stderr)
        self.assertIn("--admin-listen", done.stderr)
        with FakeServer(admin=FakeAdmin()) as admin:
            done = run("generate", "x", target=admin.target)
            self.assertEqual(done.returncode, 1)
            self.assertIn("--listen", done.stderr)

    def test_a_port_of_something_else_is_no_riddle(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def answer():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # closed: the test is over
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        target = "127.0.0.1:%d" % listener.getsockname()[1]
        done = run("info", target=target)
        self.assertEqual(done.returncode, 1)
        self.assertIn(target, done.stderr)
        self.assertIn("does not speak gRPC", done.stderr)


class CredentialsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certificates = Certificates(folder.name)

    def serve(self, client_authority=None):
        self.inference = FakeInference()
        certificates = self.certificates
        credentials = grpc.ssl_server_credentials(
            [(certificates.pem("server.key"), certificates.pem("server.crt"))],
            root_certificates=client_authority and certificates.pem(client_authority),
            require_client_auth=client_authority is not None)
        server = FakeServer(inference=self.inference, credentials=credentials)
        self.addCleanup(server.stop)
        return server.target

    def tls(self, authority="authority.crt", client=None):
        flags = ["--tls-ca", self.certificates.path(authority)]
        if client is not None:
            flags += ["--tls-cert", self.certificates.path(f"{client}.crt"),
                      "--tls-key", self.certificates.path(f"{client}.key")]
        return flags

    def test_tls_answers_and_checks_the_authority(self):
        target = self.serve()
        done = run("generate", "x", *self.tls(), target=target)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "fine", ""))
        done = run("generate", "x", *self.tls("stranger.crt"), "--retries", "0", target=target)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("--tls-ca", done.stderr)
        self.assertIn("certificate verify failed", done.stderr)
        done = run("generate", "x", "--retries", "0", target=target)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("is --tls (--tls-ca) missing?", done.stderr)

    def test_mutual_tls_shows_our_certificate(self):
        target = self.serve(client_authority="authority.crt")
        done = run("generate", "x", *self.tls(client="client"), target=target)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "fine", ""))
        for flags in (self.tls(), self.tls(client="stranger")):
            done = run("generate", "x", *flags, "--retries", "0", target=target)
            self.assertEqual((done.returncode, done.stdout), (1, ""))

    def test_tokens_come_from_a_file_or_the_environment(self):
        target = self.serve()
        token_file = self.certificates.folder / "token"
        token_file.write_text("from-file\n")
        run("generate", "x", *self.tls(), "--token-file", str(token_file), target=target, GATEHOUSE_TOKEN="other")
        self.assertEqual(self.inference.authorization, "Bearer from-file")
        run("generate", "x", *self.tls(), target=target, GATEHOUSE_TOKEN="from-environment")
        self.assertEqual(self.inference.authorization, "Bearer from-environment")

    def test_tokens_do_not_leave_the_machine_in_the_open(self):
        done = run("info", target="gatehouse.example.org:50051", GATEHOUSE_TOKEN="secret")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unencrypted", done.stderr)
        self.assertNotIn("secret", done.stderr)

    def test_files_that_are_not_what_they_should_be_are_named(self):
        for flag in ("--tls-ca", "--tls-cert", "--tls-key", "--token-file"):
            for path in ("/nowhere", "/dev/null"):
                with self.subTest(flag=flag, path=path):
                    done = run("info", flag, path, target="127.0.0.1:1")
                    self.assertEqual(done.returncode, 2)
                    self.assertIn(flag, done.stderr)
                    self.assertIn(path, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
