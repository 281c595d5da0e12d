"""/metrics parses, counts what was done, and names what each expert did; /healthz and /readyz answer."""
import json
import shutil
import socket
import subprocess
import unittest
import urllib.request

from gatehouse.v1 import inference_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families

from harness import HANG_SECONDS, ServerTest, generate, text_request


class MetricsTest(ServerTest):
    def families(self):
        return {family.name: family for family in text_string_to_metric_families(self.server.metrics())}

    def total(self, name, **labels):
        """Sum of the samples named `name` whose labels include `labels`."""
        return sum(sample.value for family in self.families().values() for sample in family.samples
                   if sample.name == name and labels.items() <= sample.labels.items())

    def test_counts_requests_and_tokens(self):
        requests = self.total("gatehouse_requests_total", code="OK", method="Generate")
        generated = self.total("gatehouse_generated_tokens_total")
        prompt = self.total("gatehouse_prompt_tokens_total")
        answer = generate(self.server, text_request(max_new_tokens=20))
        self.assertEqual(self.total("gatehouse_generated_tokens_total") - generated, 20)
        self.assertEqual(self.total("gatehouse_prompt_tokens_total") - prompt, answer.started.prompt_tokens)
        # Counted when gRPC has sent the status, a moment after the client may have it.
        for _ in range(HANG_SECONDS * 50):
            if self.total("gatehouse_requests_total", code="OK", method="Generate") == requests + 1:
                break
        self.assertEqual(self.total("gatehouse_requests_total", code="OK", method="Generate"), requests + 1)

    def test_every_assignment_of_a_token_is_some_experts(self):
        before = self.total("gatehouse_expert_tokens_total")
        answer = generate(self.server, text_request(max_new_tokens=20))
        model = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        rows = answer.started.prompt_tokens - answer.started.cached_prompt_tokens + 20 - 1
        self.assertEqual(self.total("gatehouse_expert_tokens_total") - before,
                         rows * len(model.moe_layers) * model.experts_per_token)
        series = {(sample.labels["layer"], sample.labels["expert"])
                  for sample in self.families()["gatehouse_expert_tokens"].samples
                  if sample.name == "gatehouse_expert_tokens_total"}
        self.assertLessEqual(series, {(str(layer), str(expert)) for layer in model.moe_layers
                                      for expert in range(model.experts)})

    def test_types_follow_the_names(self):
        for name, family in self.families().items():
            if not name.startswith("gatehouse_"):
                continue
            is_counter = any(sample.name.endswith("_total") for sample in family.samples)
            self.assertEqual(family.type == "counter", is_counter, name)
            self.assertNotEqual(family.documentation, "", name)

    def test_connections_that_say_nothing_do_not_keep_probes_waiting(self):
        host, port = self.server.ready["metrics"].rsplit(":", 1)
        silent = [socket.create_connection((host, int(port))) for _ in range(12)]
        try:
            for each in silent:
                each.sendall(b"GET /healthz HTTP/1.1\r\n")
            with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=5) as response:
                self.assertEqual(response.status, 200)
        finally:
            for each in silent:
                each.close()

    def test_promtool_finds_nothing_wrong(self):
        promtool = shutil.which("promtool")
        if promtool is None:
            self.skipTest("promtool is not installed (deploy/install-deps.sh --tools)")
        generate(self.server, text_request())
        done = subprocess.run([promtool, "check", "metrics"], input=self.server.metrics(), text=True,
                              capture_output=True, timeout=HANG_SECONDS, check=False)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_probes_answer(self):
        base = f"http://{self.server.ready['metrics']}"
        with urllib.request.urlopen(f"{base}/healthz", timeout=HANG_SECONDS) as response:
            self.assertEqual(response.status, 200)
        with urllib.request.urlopen(f"{base}/readyz", timeout=HANG_SECONDS) as response:
            self.assertEqual(response.status, 200)
            self.assertIsInstance(json.loads(response.read()), dict)


if __name__ == "__main__":
    unittest.main(verbosity=2)
