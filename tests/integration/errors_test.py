"""Every refusal has the right code, names the field, and leaves the server as it was."""
import unittest

import grpc
from gatehouse.v1 import inference_pb2 as pb

from harness import ServerTest, generate, text_request, violated_fields

INVALID = grpc.StatusCode.INVALID_ARGUMENT

# field path -> what is wrong with the request; the server must name the path.
BAD_REQUESTS = {
    "sampling.temperature": lambda r: setattr(r.sampling, "temperature", -1),
    "sampling.top_k": lambda r: setattr(r.sampling, "top_k", -1),
    "sampling.top_p": lambda r: setattr(r.sampling, "top_p", 1.5),
    "sampling.min_p": lambda r: setattr(r.sampling, "min_p", float("nan")),
    "sampling.typical_p": lambda r: setattr(r.sampling, "typical_p", 0),
    "sampling.frequency_penalty": lambda r: setattr(r.sampling, "frequency_penalty", 3),
    "sampling.presence_penalty": lambda r: setattr(r.sampling, "presence_penalty", -2.5),
    "sampling.repetition_penalty": lambda r: setattr(r.sampling, "repetition_penalty", 0),
    "sampling.n": lambda r: setattr(r.sampling, "n", 0),
    "sampling.logit_bias": lambda r: r.sampling.logit_bias.update({1_000_000: 1.0}),
    "sampling.allowed_token_ids": lambda r: r.sampling.allowed_token_ids.append(-5),
    "sampling.bad_words[1]": lambda r: r.sampling.bad_words.extend(["fine", ""]),
    "stop.max_new_tokens": lambda r: setattr(r.stop, "max_new_tokens", 1_000_000),
    "stop.min_new_tokens": lambda r: setattr(r.stop, "min_new_tokens", -1),
    "stop.strings": lambda r: r.stop.strings.append(""),
    "stop.token_ids": lambda r: r.stop.token_ids.append(2**31 - 1),
    "output.top_logprobs": lambda r: setattr(r.output, "top_logprobs", 1000),
    "output.prompt_logprobs": lambda r: setattr(r.output, "prompt_logprobs", -1),
    "add_special_tokens": lambda r: (r.tokens.ids.append(1), setattr(r, "add_special_tokens", False)),
    "priority": lambda r: setattr(r, "priority", 9),
    "routing.mode": lambda r: setattr(r.routing, "mode", 9),
    "tokens.ids": lambda r: r.tokens.ids.extend([1, 4096]),
    "request_id": lambda r: setattr(r, "request_id", "x" * 129),
}

# limit of GetServerInfo -> the field it bounds, and how a request comes to have that many.
LIMITED = {
    "max_bad_words": ("sampling.bad_words", lambda r, n: r.sampling.bad_words.extend(f"w{i}" for i in range(n))),
    "max_cache_salt_bytes": ("cache_salt", lambda r, n: setattr(r, "cache_salt", "s" * n)),
    "max_logit_bias": ("sampling.logit_bias", lambda r, n: r.sampling.logit_bias.update({i: 0.5 for i in range(n)})),
    "max_outputs": ("sampling.n", lambda r, n: setattr(r.sampling, "n", n)),
    "max_request_id_bytes": ("request_id", lambda r, n: setattr(r, "request_id", "i" * n)),
    "max_stop_string_bytes": ("stop.strings", lambda r, n: r.stop.strings.append("~" * n)),
    "max_stop_strings": ("stop.strings", lambda r, n: r.stop.strings.extend(f"~{i}~" for i in range(n))),
    "max_stop_token_ids": ("stop.token_ids", lambda r, n: r.stop.token_ids.extend(range(1000, 1000 + n))),
    "max_top_logprobs": ("output.top_logprobs", lambda r, n: setattr(r.output, "top_logprobs", n)),
}


class ErrorTest(ServerTest):
    def test_a_field_may_have_what_its_limit_says_and_no_more(self):
        limits = self.server.stub.GetServerInfo(pb.GetServerInfoRequest()).limits
        for name, (field, fill) in LIMITED.items():
            with self.subTest(limit=name):
                limit = getattr(limits, name)
                request = text_request(max_new_tokens=1)
                fill(request, limit)
                generate(self.server, request)
                request = text_request(max_new_tokens=1)
                fill(request, limit + 1)
                error = self.assert_fails(INVALID, lambda: generate(self.server, request))
                self.assertTrue(violated_fields(error)[0].startswith(field), error.details())
                self.assertIn(f"got {limit + 1}", error.details())
                self.assertRegex(error.details(), rf"\b{limit}\b")

    def test_a_bad_word_of_too_many_tokens_names_both_numbers(self):
        limit = self.server.stub.GetServerInfo(pb.GetServerInfoRequest()).limits.max_bad_word_tokens
        word = " ".join(f"w{i}" for i in range(limit))
        num_tokens = len(self.server.stub.Tokenize(pb.TokenizeRequest(text=word)).ids)
        request = text_request()
        request.sampling.bad_words.append(word)
        error = self.assert_fails(INVALID, lambda: generate(self.server, request))
        self.assertEqual(violated_fields(error), ["sampling.bad_words[0]"])
        self.assertIn(f"got {num_tokens} tokens, the limit is {limit}", error.details())

    def test_bad_fields_are_named(self):
        for field, spoil in BAD_REQUESTS.items():
            with self.subTest(field=field):
                request = text_request()
                spoil(request)
                error = self.assert_fails(INVALID, lambda: generate(self.server, request))
                fields = violated_fields(error)
                self.assertEqual(len(fields), 1, error.details())
                self.assertTrue(fields[0].startswith(field), fields[0])

    def test_no_input_and_empty_input_are_refused(self):
        for request in (pb.GenerateRequest(), pb.GenerateRequest(text=""), pb.GenerateRequest(tokens=pb.TokenIds())):
            self.assert_fails(INVALID, lambda request=request: generate(self.server, request))

    def test_a_prompt_beyond_the_context_names_both_numbers(self):
        request = pb.GenerateRequest(tokens=pb.TokenIds(ids=[5] * 300))
        error = self.assert_fails(INVALID, lambda: generate(self.server, request))
        self.assertIn("300", error.details())
        self.assertIn("256", error.details())

    def test_another_model_is_not_found_and_its_name_is_said(self):
        request = text_request()
        request.model = "other-model"
        error = self.assert_fails(grpc.StatusCode.NOT_FOUND, lambda: generate(self.server, request))
        self.assertIn("other-model", error.details())
        self.assert_fails(grpc.StatusCode.NOT_FOUND,
                          lambda: self.server.stub.GetModelInfo(pb.GetModelInfoRequest(model="other-model")))
        request.model = self.server.stub.GetModelInfo(pb.GetModelInfoRequest()).name
        self.assertEqual(len(generate(self.server, request).ids), 16)

    def test_a_mode_without_policy_says_what_to_configure(self):
        request = text_request()
        request.routing.mode = pb.Routing.SHARED
        error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, lambda: generate(self.server, request))
        self.assertIn("mode shared", error.details())
        self.assertIn("--routing-config", error.details())

    def test_a_message_beyond_the_limit_is_refused_and_the_next_is_served(self):
        limit = self.server.stub.GetServerInfo(pb.GetServerInfoRequest()).limits.max_request_bytes
        request = text_request(text="x" * (limit + 1))
        self.assert_fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: generate(self.server, request))
        self.assertEqual(len(generate(self.server, text_request()).ids), 16)


if __name__ == "__main__":
    unittest.main(verbosity=2)
