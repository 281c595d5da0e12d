"""What transformers computed (tests/golden, models) comes out of a real server over gRPC."""
import json
import pathlib
import unittest

from gatehouse.v1 import inference_pb2 as pb

from harness import DEMO_MODEL, Server, generate

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
# Sums of float32 in another order: the engine's own golden test derives bounds; here a misread field or a
# transposition must show, and each case is built so that such a mistake changes a log-probability by 0.05 or more.
LOGPROB_TOLERANCE = 2e-3
WEIGHT_TOLERANCE = 1e-3


class GoldenTest(unittest.TestCase):
    def test_there_are_cases(self):
        self.assertGreaterEqual(len(list(GOLDEN.glob("*/golden.json"))), 19)

    def test_tiny_checkpoints(self):
        for path in sorted(GOLDEN.glob("*/golden.json")):
            with self.subTest(case=path.parent.name), Server(model=path.parent) as server:
                self.check_case(server, json.loads(path.read_text()))

    def check_case(self, server, case):
        for sample in case["tokenizer_samples"]:
            request = pb.TokenizeRequest(text=sample["text"], add_special_tokens=False)
            self.assertEqual(list(server.stub.Tokenize(request).ids), sample["ids"])
        model = server.stub.GetModelInfo(pb.GetModelInfoRequest())
        self.assertEqual(list(model.moe_layers), case["moe_layers"])
        for prompt in case["prompts"]:
            with self.subTest(prompt_tokens=len(prompt["prompt_ids"])):
                self.check_prompt(server, case, prompt)

    def check_prompt(self, server, case, prompt):
        request = pb.GenerateRequest(
            tokens=pb.TokenIds(ids=prompt["prompt_ids"]),
            sampling=pb.Sampling(temperature=0),
            stop=pb.Stop(max_new_tokens=len(prompt["tokens"])),
            output=pb.Output(top_logprobs=len(prompt["top_ids"][0]), prompt_logprobs=0, routed_experts=True))
        answer = generate(server, request)
        self.assertEqual(answer.ids, prompt["tokens"])
        self.assert_near([token.logprob for token in answer.tokens], prompt["logprobs"], LOGPROB_TOLERANCE)
        self.assert_near([token.logprob for token in answer.prompt_tokens[1:]], prompt["prompt_logprobs"],
                         LOGPROB_TOLERANCE)
        for token, logprobs in zip(answer.tokens, prompt["top_logprobs"], strict=True):
            # Only the best is sure of its place: the gap of 1e-2 is between the two best.
            self.assert_near([entry.logprob for entry in token.top], logprobs, LOGPROB_TOLERANCE)
        self.check_routes(answer, case, prompt)

    def check_routes(self, answer, case, prompt):
        # A generated token shows the row that produced it: the first one repeats the prompt's last row.
        self.assertEqual(answer.tokens[0].routed_experts, answer.prompt_tokens[-1].routed_experts)
        rows = answer.prompt_tokens + answer.tokens[1:]
        top_k = case["top_k"]
        for layer_idx, route in enumerate(prompt["routes"]):
            slots = slice(layer_idx * top_k, (layer_idx + 1) * top_k)
            experts = [list(row.routed_experts.expert_ids[slots]) for row in rows]
            self.assertEqual(experts, route["experts"], f"layer {route['layer']}")
            for row, weights in zip(rows, route["weights"], strict=True):
                self.assert_near(row.routed_experts.weights[slots], weights, WEIGHT_TOLERANCE)

    def assert_near(self, values, expected, tolerance):
        self.assertEqual(len(values), len(expected))
        for value, want in zip(values, expected):
            self.assertAlmostEqual(value, want, delta=tolerance)

    def test_shipped_models(self):
        for folder in (DEMO_MODEL, DEMO_MODEL.parent / "locmoe"):
            with self.subTest(model=folder.name), Server(model=folder) as server:
                self.check_shipped_model(server, folder)

    def check_shipped_model(self, server, folder):
        for case in json.loads((folder / "golden.json").read_text())["cases"]:
            request = pb.GenerateRequest(text=case["prompt"], sampling=pb.Sampling(temperature=0),
                                         stop=pb.Stop(max_new_tokens=len(case["greedy"]), ignore_eos=True))
            self.assertEqual(generate(server, request).ids, case["greedy"], case["prompt"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
