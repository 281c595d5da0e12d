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
    "sampling.frequency_penalty": lambda r: setattr(r.sampling, "frequency_penalty", 3),
    "sampling.repetition_penalty": lambda r: setattr(r.sampling, "repetition_penalty", 0),
    "sampling.n": lambda r: setattr(r.sampling, "n", 0),
    "sampling.logit_bias": lambda r: r.sampling.logit_bias.update({1_000_000: 1.0}),
    "sampling.allowed_token_ids": lambda r: r.sampling.allowed_token_ids.append(-5),
    "stop.max_new_tokens": lambda r: setattr(r.stop, "max_new_tokens", 1_000_000),
    "stop.min_new_tokens": lambda r: setattr(r.stop, "min_new_tokens", -1),
    "stop.strings": lambda r: r.stop.strings.append(""),
    "stop.token_ids": lambda r: r.stop.token_ids.append(2**31 - 1),
    "output.top_logprobs": lambda r: setattr(r.output, "top_logprobs", 1000),
    "output.prompt_logprobs": lambda r: setattr(r.output, "prompt_logprobs", -1),
    "tokens.ids": lambda r: r.tokens.ids.extend([1, 4096]),
    "request_id": lambda r: setattr(r, "request_id", "x" * 129),
}


class ErrorTest(ServerTest):
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
