"""The programs `gatehouse` and `gatehouse-loadgen` against a real server: output, signals, exit codes."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

import harness
from gatehouse.v1 import inference_pb2 as pb
from harness import HANG_SECONDS, ServerTest, generate, text_request

PROMPT = "It is a truth universally acknowledged, that"
GREEDY = ("--temperature", "0", "--max-new-tokens", "16", "--ignore-eos")


def run(*words, program="gatehouse", target=None, stdin=None):
    environment = {**os.environ, "GATEHOUSE_TARGET": target or "127.0.0.1:1"}
    options = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([harness.program(program), *words], env=environment, capture_output=True,
                          timeout=HANG_SECONDS, check=False, **options)


class CliTest(ServerTest):
    def gatehouse(self, *words, **kwargs):
        return run(*words, target=self.server.target, **kwargs)

    def assert_done(self, done):
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout.decode()

    def test_generate_takes_its_prompt_from_anywhere(self):
        expected = generate(self.server, text_request()).text
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "prompt.txt"
            path.write_text(PROMPT)
            for words, stdin in (((PROMPT,), None), (("--file", str(path)), None), ((), PROMPT.encode()),
                                 (("-",), PROMPT.encode())):
                with self.subTest(words=words):
                    self.assertEqual(self.assert_done(self.gatehouse("generate", *words, *GREEDY, stdin=stdin)),
                                     expected)

    def test_json_prints_the_events_and_stats_go_to_standard_error(self):
        done = self.gatehouse("generate", PROMPT, *GREEDY, "--json", "--stats", "--top-logprobs", "2", "--token-ids")
        self.assertEqual(done.returncode, 0, done.stderr)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(list(events[0]), ["started"])
        self.assertEqual(len(events[0]["started"]["prompt_token_ids"]), events[0]["started"]["prompt_tokens"])
        tokens = [token for event in events if "delta" in event for token in event["delta"]["tokens"]]
        self.assertEqual(len(tokens), 16)
        self.assertTrue(all(len(token["top"]) == 2 for token in tokens))
        self.assertEqual(events[-1]["finished"]["reason"], "LENGTH")
        self.assertIn("16 tokens received", done.stderr.decode())

    def test_tokenize_and_detokenize_are_inverse(self):
        ids = self.assert_done(self.gatehouse("tokenize", PROMPT))
        self.assertEqual(self.assert_done(self.gatehouse("detokenize", *ids.split())), PROMPT)
        self.assertEqual(self.assert_done(self.gatehouse("detokenize", stdin=ids.encode())), PROMPT)
        answer = json.loads(self.assert_done(self.gatehouse("--json", "tokenize", PROMPT)))
        self.assertEqual(answer["ids"], [int(word) for word in ids.split()])

    def test_info_and_health(self):
        text = self.assert_done(self.gatehouse("info"))
        self.assertIn("qwen3_moe", text)
        self.assertIn("16, 2 for each token", text)
        for field in pb.Limits.DESCRIPTOR.fields:
            self.assertRegex(text, rf"(?m)^  {field.name} +[0-9.e+]+$")
        lines = self.assert_done(self.gatehouse("info", "--json")).splitlines()
        self.assertEqual(json.loads(lines[0])["vocab_size"], 4096)
        self.assertIn("limits", json.loads(lines[1]))
        self.assertEqual(self.assert_done(self.gatehouse("health")), "SERVING\n")
        self.assertEqual(json.loads(self.assert_done(self.gatehouse("health", "--json"))), {"status": "SERVING"})

    def test_a_refusal_exits_with_1_and_names_the_field(self):
        done = self.gatehouse("generate", PROMPT, "--top-p", "7")
        self.assertEqual(done.returncode, 1)
        self.assertIn("sampling.top_p", done.stderr.decode())
        done = self.gatehouse("generate", PROMPT, "--top-p", "7", "--json")
        error = json.loads(done.stdout)["error"]
        self.assertEqual(error["code"], "INVALID_ARGUMENT")
        self.assertEqual(error["violations"][0]["field"], "sampling.top_p")

    def test_bad_usage_exits_with_2(self):
        for words in (("generate", PROMPT, "--temprature", "1"), ("genrate",), (), ("generate", "--file", "/nowhere")):
            with self.subTest(words=words):
                self.assertEqual(self.gatehouse(*words).returncode, 2)
        self.assertIn(b"did you mean --temperature?", self.gatehouse("generate", "x", "--temprature", "1").stderr)
        self.assertEqual(self.gatehouse("generate", stdin=b"caf\xe9").returncode, 2)
        self.assertEqual(self.gatehouse("generate", "x", "--stop", b"caf\xe9").returncode, 2)

    def test_no_server_exits_with_1_and_says_what_to_do(self):
        done = run("generate", PROMPT, target="127.0.0.1:1")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"127.0.0.1:1", done.stderr)
        self.assertIn(b"gatehouse-server --model", done.stderr)

    def start_long(self):
        """A request whose output exceeds what a pipe holds: it cannot end before we read on. One line is read."""
        process = subprocess.Popen([harness.program("gatehouse"), "generate", PROMPT, "--target", self.server.target,
                                    "--json", "--ignore-eos", "--max-new-tokens", "240", "--top-logprobs", "20"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        self.assertIn(b"started", process.stdout.readline())
        return process

    def test_ctrl_c_cancels_and_exits_with_130(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start_long()
            process.send_signal(number)
            _, stderr = process.communicate(timeout=HANG_SECONDS)
            self.assertEqual(process.returncode, 130, stderr)
            self.assertIn(b"interrupted", stderr)

    def test_a_closed_output_ends_the_request(self):
        # A pipe that nobody reads any more from the start: the first write fails, however fast the server is.
        read_end, write_end = os.pipe()
        os.close(read_end)
        process = subprocess.Popen([harness.program("gatehouse"), "generate", PROMPT, "--target", self.server.target],
                                   stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE)
        os.close(write_end)
        _, stderr = process.communicate(timeout=HANG_SECONDS)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"the reader of the output is gone", stderr)

    def test_loadgen_reports_json_lines(self):
        for loop in (("--clients", "4"), ("--rate", "50")):
            with self.subTest(loop=loop):
                done = self.gatehouse(*loop, "--requests", "12", "--prompt-tokens", "8", "--max-new-tokens", "6",
                                      "--ignore-eos", "--warmup", "2", "--repeats", "2", "--connections", "2",
                                      "--server-pid", str(self.server.process.pid), program="gatehouse-loadgen")
                self.assertEqual(done.returncode, 0, done.stderr)
                lines = [json.loads(line) for line in done.stdout.splitlines()]
                self.assertEqual([line["kind"] for line in lines], ["run", "run", "result"])
                for line in lines[:2]:
                    self.assertEqual((line["done"], line["tokens"], line["errors"]), (12, 72, {}))
                    self.assertEqual(line["time_to_first_token_seconds"]["count"], 12)
                result = lines[2]
                self.assertEqual((result["repeats"], result["server"]["model"] != ""), (2, True))
                self.assertGreater(result["metrics"]["tokens_per_second"]["median"], 0)

    def test_loadgen_that_would_not_end_is_bad_usage(self):
        self.assertEqual(self.gatehouse(program="gatehouse-loadgen").returncode, 2)
        self.assertEqual(run("--requests", "1", program="gatehouse-loadgen", target="127.0.0.1:1").returncode, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
