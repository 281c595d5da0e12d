"""Who gets in: TLS, client certificates, tokens, tenants, and their exchange while the server runs."""
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest

import grpc
from certificates import Authority
from gatehouse.v1 import admin_pb2 as admin
from gatehouse.v1 import inference_pb2 as pb
from gatehouse.v1 import inference_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness import DEMO_MODEL, HANG_SECONDS, Server, generate, program, text_request

Code = grpc.StatusCode
TOKEN, OTHER_TOKEN = "0123456789abcdef", "fedcba9876543210"


def bearer(token):
    return {"metadata": (("authorization", f"Bearer {token}"),)}


def wait_for(condition, what):
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting until {what}")
        time.sleep(0.05)


class SecurityTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def serve(self, *flags, **options):
        server = Server(*map(str, flags), **options)
        self.addCleanup(server.stop)
        return server

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def code_of(self, call):
        try:
            call()
            return Code.OK
        except grpc.RpcError as error:
            return error.code()

    def tls_code(self, server, authority, client=None, target=None):
        """How a call ends with `authority` trusted and `client` (certificate, key) shown."""
        certificate, key = (path.read_bytes() for path in client) if client else (None, None)
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
        options = (("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(target or server.target, credentials, options) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            return self.code_of(lambda: stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=HANG_SECONDS))


class TlsTest(SecurityTest):
    def setUp(self):
        super().setUp()
        self.authority = Authority(self.folder, "authority")
        self.certificate, self.key = self.authority.sign("server")
        self.flags = ("--tls-cert", self.certificate, "--tls-key", self.key)

    def test_only_who_trusts_the_authority_and_encrypts_gets_through(self):
        server = self.serve(*self.flags)
        self.assertEqual(self.tls_code(server, self.authority), Code.OK)
        self.assertEqual(self.tls_code(server, Authority(self.folder, "stranger")), Code.UNAVAILABLE)
        self.assertEqual(self.code_of(lambda: server.stub.GetModelInfo(pb.GetModelInfoRequest())), Code.UNAVAILABLE)

    def test_another_admin_port_than_the_default_has_the_certificates_too(self):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("127.0.0.1", 50052))
                taken.listen()
            except OSError:
                pass  # by somebody else: as well
            server = self.serve(*self.flags, admin_listen="127.0.0.1:50052")
        self.assertIn("the default of --admin-listen is taken", server.log())
        self.assertEqual(self.tls_code(server, self.authority), Code.OK)

    def test_mutual_tls(self):
        server = self.serve(*self.flags, "--tls-client-ca", self.authority.certificate)
        stranger = Authority(self.folder, "stranger").sign("strange_client")
        self.assertEqual(self.tls_code(server, self.authority, self.authority.sign("client")), Code.OK)
        self.assertEqual(self.tls_code(server, self.authority), Code.UNAVAILABLE)
        self.assertEqual(self.tls_code(server, self.authority, stranger), Code.UNAVAILABLE)
        self.assertEqual(self.tls_code(server, self.authority, self.authority.sign("late", days=-1)), Code.UNAVAILABLE)

    def test_an_expired_certificate_is_told_and_refused_by_clients(self):
        certificate, key = self.authority.sign("old", days=-1)
        server = self.serve("--tls-cert", certificate, "--tls-key", key)
        self.assertEqual(self.tls_code(server, self.authority), Code.UNAVAILABLE)
        self.assertIn("a certificate has expired", server.log())
        expiry = next(line for line in server.metrics().splitlines()
                      if line.startswith('gatehouse_tls_certificate_expiry_timestamp_seconds{file="tls"}'))
        self.assertLess(float(expiry.split()[-1]), time.time())

    def test_certificates_are_exchanged_while_it_serves_and_bad_ones_are_not(self):
        server = self.serve(*self.flags)
        self.assertEqual(self.tls_code(server, self.authority), Code.OK)
        successor = Authority(self.folder, "successor")
        certificate, key = successor.sign("next")
        key.replace(self.key)
        certificate.replace(self.certificate)
        wait_for(lambda: self.tls_code(server, successor) == Code.OK, "the new certificate is used")
        self.assertEqual(self.tls_code(server, self.authority), Code.UNAVAILABLE)

        self.certificate.write_text("garbage\n")
        failed = 'gatehouse_reloads_total{file="tls",result="error"}'
        wait_for(lambda: failed in server.metrics(), "the bad file is noticed")
        self.assertEqual(self.tls_code(server, successor), Code.OK)
        self.assertIn("the old content stays in force", server.log())

    def test_operators_need_a_certificate_of_their_own_authority(self):
        operators = Authority(self.folder, "operators")
        server = self.serve(*self.flags, "--admin-tls-client-ca", operators.certificate)
        self.assertEqual(self.tls_code(server, self.authority), Code.OK)
        # The service is another one; whoever gets through is told so.
        def code(client):
            return self.tls_code(server, self.authority, client, server.ready["admin"])
        self.assertEqual(code(operators.sign("operator")), Code.UNIMPLEMENTED)
        self.assertEqual(code(self.authority.sign("client")), Code.UNAVAILABLE)
        self.assertEqual(code(None), Code.UNAVAILABLE)


class TokenTest(SecurityTest):
    def test_every_method_wants_a_known_token_and_health_wants_none(self):
        server = self.serve("--auth-token-file", self.file("tokens", TOKEN + "\n"))
        calls = {
            "Generate": lambda **more: generate(server, text_request(), **more),
            "Tokenize": lambda **more: server.stub.Tokenize(pb.TokenizeRequest(text="a"), **more),
            "Detokenize": lambda **more: server.stub.Detokenize(pb.DetokenizeRequest(ids=[1]), **more),
            "GetModelInfo": lambda **more: server.stub.GetModelInfo(pb.GetModelInfoRequest(), **more),
            "GetServerInfo": lambda **more: server.stub.GetServerInfo(pb.GetServerInfoRequest(), **more),
        }
        for name, call in calls.items():
            with self.subTest(name=name):
                self.assertEqual(self.code_of(call), Code.UNAUTHENTICATED)
                self.assertEqual(self.code_of(lambda: call(**bearer(OTHER_TOKEN))), Code.UNAUTHENTICATED)
                self.assertEqual(self.code_of(lambda: call(**bearer(TOKEN))), Code.OK)
        health = health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest())
        self.assertEqual(health.status, health_pb2.HealthCheckResponse.SERVING)
        self.assertNotIn(TOKEN, server.log())

    def test_tenants_bound_priority_and_mode_and_are_read_again(self):
        tenants = """
            tenants:
              - {name: web, max-priority: normal, tokens: [%s]}
              - {name: lab, loosest-mode: shared, tokens: [%s]}
        """
        path = self.file("tenants.yaml", tenants % (TOKEN, OTHER_TOKEN))
        server = self.serve("--tenants", path)
        request = text_request(max_new_tokens=1)
        request.priority = pb.GenerateRequest.HIGH

        def run(token):
            return generate(server, request, **bearer(token))
        self.assertEqual(run(TOKEN).started.priority, pb.GenerateRequest.NORMAL)
        self.assertEqual(run(OTHER_TOKEN).started.priority, pb.GenerateRequest.HIGH)
        request.routing.mode = pb.Routing.SHARED
        self.assertEqual(self.code_of(lambda: run(TOKEN)), Code.PERMISSION_DENIED)
        self.assertEqual(self.code_of(lambda: run(OTHER_TOKEN)), Code.FAILED_PRECONDITION)
        request.routing.mode = pb.Routing.EXACT
        self.assertIn("tenant=web", server.log())

        new_token = "another-token-of-web"
        path.write_text(tenants % (new_token, OTHER_TOKEN))
        wait_for(lambda: self.code_of(lambda: run(new_token)) == Code.OK, "the new token is known")
        self.assertEqual(self.code_of(lambda: run(TOKEN)), Code.UNAUTHENTICATED)
        path.write_text("tenants: [{name: web}]")
        failed = 'gatehouse_reloads_total{file="tenants",result="error"}'
        wait_for(lambda: failed in server.metrics(), "the bad file is noticed")
        self.assertEqual(self.code_of(lambda: run(new_token)), Code.OK)

    def test_sighup_reads_again(self):
        server = self.serve("--auth-token-file", self.file("tokens", TOKEN + "\n"))
        server.signal(1)
        wait_for(lambda: 'gatehouse_reloads_total{file="tenants",result="ok"}' in server.metrics(), "it is read again")

    def test_operators_have_tokens_of_their_own(self):
        server = self.serve("--auth-token-file", self.file("tokens", TOKEN + "\n"),
                            "--admin-token-file", self.file("operators", OTHER_TOKEN + "\n"))
        for call in (lambda **more: server.admin.GetStatus(admin.GetStatusRequest(), **more),
                     lambda **more: next(server.admin.WatchStatus(admin.WatchStatusRequest(), **more))):
            self.assertEqual(self.code_of(call), Code.UNAUTHENTICATED)
            self.assertEqual(self.code_of(lambda: call(**bearer(TOKEN))), Code.UNAUTHENTICATED)
            self.assertEqual(self.code_of(lambda: call(**bearer(OTHER_TOKEN))), Code.OK)


class StartTest(SecurityTest):
    def test_what_would_be_unsafe_does_not_start(self):
        tokens = self.file("tokens", TOKEN + "\n")
        certificate, key = Authority(self.folder, "authority").sign("server")
        loopback = {"--listen": "127.0.0.1:0", "--admin-listen": "127.0.0.1:0", "--metrics-listen": ""}
        tls = {"--tls-cert": certificate, "--tls-key": key}
        anywhere = {"--listen": "0.0.0.0:0"}
        operators = {"--admin-listen": "0.0.0.0:0"}
        insecure = {"--insecure": None}
        refused = [
            (anywhere, "not a loopback address"),
            ({**anywhere, **insecure, "--auth-token-file": tokens}, "in the open"),
            ({**operators, **insecure, "--admin-token-file": tokens}, "--admin-listen"),
            ({**operators, **tls}, "--admin-token-file"),
            ({"--admin-listen": "", "--admin-token-file": tokens}, "no effect"),
            ({"--auth-token-file": tokens, "--tenants": tokens}, "exclude each other"),
            ({"--auth-token-file": self.file("empty", "# none\n")}, "at least one"),
            ({"--tenants": self.folder / "absent"}, "cannot be read"),
            ({"--tenants": tokens}, "expected"),
            ({"--tls-cert": certificate, "--tls-key": self.folder / "authority.key"}, "not the key"),
            ({"--tls-cert": tokens, "--tls-key": key}, "PEM"),
            ({"--tls-cert": certificate}, "together"),
        ]
        for flags, expected in refused:
            words = [str(word) for pair in {**loopback, **flags}.items() for word in pair if word is not None]
            with self.subTest(flags=flags):
                done = subprocess.run([program("gatehouse-server"), "--model", str(DEMO_MODEL), *words], check=False,
                                      capture_output=True, text=True, timeout=HANG_SECONDS, stdin=subprocess.DEVNULL)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(expected, done.stderr)
                self.assertNotIn(TOKEN, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
