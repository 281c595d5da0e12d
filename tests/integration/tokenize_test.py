"""Tokenize and Detokenize, and what GetModelInfo and GetServerInfo say."""
import json
import unittest

import grpc
from gatehouse.v1 import inference_pb2 as pb

from harness import DEMO_MODEL, ServerTest

TEXTS = ["", "Hello", " two  spaces\n\n", "caf\u00e9 \u4f60\u597d \U0001f600 \u05d0\u05d1", "x" * 5000, "\t\r\n\x00end"]


class TokenizeTest(ServerTest):
    def ids(self, text, **kwargs):
        return list(self.server.stub.Tokenize(pb.TokenizeRequest(text=text, **kwargs)).ids)

    def text(self, ids, **kwargs):
        return self.server.stub.Detokenize(pb.DetokenizeRequest(ids=ids, **kwargs)).text

    def test_round_trip_is_exact(self):
        for text in TEXTS:
            with self.subTest(text=text[:20]):
                self.assertEqual(self.text(self.ids(text)), text)

    def test_more_ids_than_the_limit_are_counted_and_refused(self):
        limit = self.server.stub.GetServerInfo(pb.GetServerInfoRequest()).limits.max_detokenize_ids
        ids = self.ids("x")[:1] * (limit + 1)
        self.assertEqual(self.text(ids[:limit]), "x" * limit)
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.text(ids))
        self.assertIn(f"got {len(ids)} tokens, the limit is {limit}", error.details())

    def test_equals_the_recorded_ids(self):
        for case in json.loads((DEMO_MODEL / "golden.json").read_text())["cases"]:
            self.assertEqual(self.ids(case["prompt"]), case["ids"])

    def test_special_text_stays_text_unless_parsed(self):
        special = "<|endoftext|>"
        self.assertNotIn(0, self.ids(special))
        self.assertEqual(self.ids(special, parse_special=True), [0])
        self.assertEqual(self.text([0]), special)
        self.assertEqual(self.text([0], skip_special_tokens=True), "")

    def test_ids_outside_the_vocabulary_are_refused(self):
        vocab_size = self.server.stub.GetModelInfo(pb.GetModelInfoRequest()).vocab_size
        for bad_id in (-1, vocab_size, 2**31 - 1):
            self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, lambda bad_id=bad_id: self.text([bad_id]))

    def test_half_a_character_becomes_a_replacement(self):
        ids = self.ids("\U0001f600")
        self.assertGreater(len(ids), 1)  # four bytes, unknown to a vocabulary of old English
        self.assertIn("\ufffd", self.text(ids[:1]))

    def test_model_facts_are_those_of_the_folder(self):
        model = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        config = json.loads((DEMO_MODEL / "config.json").read_text())
        self.assertEqual(model.family, "qwen3_moe")
        self.assertEqual(model.parameters, 11_693_696)
        self.assertEqual(model.layers, config["num_hidden_layers"])
        self.assertEqual(list(model.moe_layers), list(range(model.layers)))
        self.assertEqual(model.hidden_size, config["hidden_size"])
        self.assertEqual(model.vocab_size, config["vocab_size"])
        self.assertEqual(model.experts, config["num_experts"])
        self.assertEqual(model.experts_per_token, config["num_experts_per_tok"])
        self.assertLess(0, model.active_parameters)
        self.assertLess(model.active_parameters, model.parameters)
        self.assertEqual(model.default_max_new_tokens, 0)
        self.assertEqual(model.max_context, config["max_position_embeddings"])
        self.assertEqual(list(model.eos_token_ids), [0])
        self.assertFalse(model.has_chat_template)
        self.assertEqual((model.expert_weight_format, model.dense_weight_format), ("bf16", "bf16"))
        self.assertAlmostEqual(model.default_sampling.temperature, 0.8, places=6)
        self.assertAlmostEqual(model.default_sampling.top_p, 0.95, places=6)

    def test_server_facts_are_filled(self):
        info = self.server.stub.GetServerInfo(pb.GetServerInfoRequest())
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+$")
        self.assertEqual(info.backend, "cpu")
        self.assertNotEqual(info.isa, "")
        self.assertNotEqual(info.build, "")
        self.assertEqual(info.kv_type, "f32")
        self.assertGreaterEqual(info.threads, 1)
        self.assertGreaterEqual(info.ranks, 1)
        for field in info.limits.DESCRIPTOR.fields:
            self.assertGreater(getattr(info.limits, field.name), 0, field.name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
