"""What a stream looks like, and that the same request gives the same bits whatever shares the batch."""
import concurrent.futures
import unittest

from gatehouse.v1 import inference_pb2 as pb

from harness import ServerTest, generate, text_request


class StreamTest(ServerTest):
    def test_started_then_deltas_then_finished(self):
        answer = generate(self.server, text_request())
        self.assertEqual(answer.kinds[0], "started")
        self.assertEqual(answer.kinds[-1], "finished")
        self.assertEqual(set(answer.kinds[1:-1]), {"delta"})
        self.assertEqual(len(answer.ids), 16)
        self.assertEqual(answer.finished.reason, pb.Finished.LENGTH)
        self.assertEqual(answer.finished.usage.generated_tokens, 16)
        self.assertEqual(answer.finished.usage.prompt_tokens, answer.started.prompt_tokens)
        self.assertGreater(answer.finished.timings.total_seconds, 0)
        self.assertFalse(answer.finished.HasField("moe_report"))

    def test_text_equals_detokenising_the_ids_and_joining_the_bytes(self):
        answer = generate(self.server, text_request(max_new_tokens=64))
        text = self.server.stub.Detokenize(pb.DetokenizeRequest(ids=answer.ids)).text
        self.assertEqual(answer.text, text)
        self.assertEqual(b"".join(token.bytes for token in answer.tokens).decode(), text)

    def test_repeats_the_request_id_or_makes_one(self):
        request = text_request(max_new_tokens=1)
        first = generate(self.server, request).started.request_id
        self.assertNotEqual(first, "")
        self.assertNotEqual(generate(self.server, request).started.request_id, first)
        request.request_id = "mine-1"
        self.assertEqual(generate(self.server, request).started.request_id, "mine-1")

    def test_text_and_its_ids_are_the_same_prompt(self):
        from_text = text_request()
        from_text.output.token_ids = True
        text_answer = generate(self.server, from_text)
        from_ids = text_request()
        from_ids.tokens.ids.extend(text_answer.started.prompt_token_ids)
        self.assertEqual(generate(self.server, from_ids).ids, text_answer.ids)

    def test_stop_string_is_trimmed_unless_kept(self):
        whole = generate(self.server, text_request(max_new_tokens=32)).text
        stop = whole[len(whole) // 2:len(whole) // 2 + 4]
        trimmed = generate(self.server, text_request(max_new_tokens=32, strings=[stop]))
        self.assertEqual(trimmed.text, whole[:whole.index(stop)])
        self.assertEqual(trimmed.finished.reason, pb.Finished.STOP_STRING)
        self.assertEqual(trimmed.finished.matched_stop, stop)
        kept = generate(self.server, text_request(max_new_tokens=32, strings=[stop], include_stop=True))
        self.assertEqual(kept.text, whole[:whole.index(stop) + len(stop)])

    def test_stop_token_ends_the_output(self):
        whole = generate(self.server, text_request(max_new_tokens=32))
        stop_id = whole.ids[10]
        answer = generate(self.server, text_request(max_new_tokens=32, token_ids=[stop_id]))
        self.assertEqual(answer.finished.reason, pb.Finished.STOP_TOKEN)
        self.assertEqual(answer.finished.matched_stop_token_id, stop_id)
        self.assertEqual(answer.finished.usage.generated_tokens, whole.ids.index(stop_id) + 1)

    def test_logprobs_come_only_when_asked_for(self):
        request = text_request(max_new_tokens=4)
        self.assertFalse(any(token.HasField("logprob") for token in generate(self.server, request).tokens))
        request.output.top_logprobs = 0
        chosen = generate(self.server, request).tokens
        self.assertTrue(all(token.HasField("logprob") and not token.top for token in chosen))
        request.output.top_logprobs = 5
        for token in generate(self.server, request).tokens:
            self.assertEqual(len(token.top), 5)
            self.assertEqual((token.top[0].id, token.top[0].logprob), (token.id, token.logprob))  # greedy
            logprobs = [entry.logprob for entry in token.top]
            self.assertEqual(logprobs, sorted(logprobs, reverse=True))
            self.assertLessEqual(max(logprobs), 0)

    def test_prompt_events_come_before_deltas_and_cover_the_prompt(self):
        request = text_request(max_new_tokens=2)
        request.output.prompt_logprobs = 0
        answer = generate(self.server, request)
        self.assertEqual(len(answer.prompt_tokens), answer.started.prompt_tokens)
        self.assertEqual(answer.prompt_positions[0], 0)
        self.assertFalse(answer.prompt_tokens[0].HasField("logprob"))
        self.assertTrue(all(token.HasField("logprob") for token in answer.prompt_tokens[1:]))
        first_delta = answer.kinds.index("delta")
        self.assertNotIn("prompt", answer.kinds[first_delta:])

    def test_routed_experts_have_the_shape_of_the_model(self):
        model = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        request = text_request(max_new_tokens=3)
        request.output.routed_experts = True
        request.output.moe_report = True
        answer = generate(self.server, request)
        for token in answer.prompt_tokens + answer.tokens:
            self.assertEqual(len(token.routed_experts.expert_ids), len(model.moe_layers) * model.experts_per_token)
            self.assertEqual(len(token.routed_experts.weights), len(token.routed_experts.expert_ids))
            self.assertTrue(all(0 <= expert < model.experts for expert in token.routed_experts.expert_ids))
        report = answer.finished.moe_report
        rows = len(answer.prompt_tokens) + len(answer.tokens) - 1
        self.assertEqual(report.assignments, rows * len(model.moe_layers) * model.experts_per_token)
        self.assertEqual((report.kept, report.rerouted, report.dropped), (report.assignments, 0, 0))
        self.assertTrue(report.exact)

    def test_seed_repeats_a_sampled_text_and_another_seed_does_not(self):
        request = text_request(max_new_tokens=32)
        request.sampling.temperature = 1
        request.sampling.seed = 7
        first = generate(self.server, request)
        self.assertEqual(generate(self.server, request).ids, first.ids)
        request.sampling.seed = 8
        self.assertNotEqual(generate(self.server, request).ids, first.ids)

    def test_several_outputs_share_a_prompt_and_end_one_by_one(self):
        request = text_request(max_new_tokens=12)
        request.sampling.temperature, request.sampling.seed = 1, 5
        alone = generate(self.server, request)
        request.sampling.n = 3
        events = list(self.server.stub.Generate(request))
        self.assertEqual([event.WhichOneof("event") for event in events].count("started"), 1)
        finished = [event.finished for event in events if event.HasField("finished")]
        self.assertEqual(sorted(event.output_index for event in finished), [0, 1, 2])
        ids = {}
        for event in events:
            if event.HasField("delta"):
                ids.setdefault(event.delta.output_index, []).extend(token.id for token in event.delta.tokens)
        self.assertEqual(ids[0], list(alone.ids))
        self.assertNotEqual(ids[1], ids[2])
        for event in finished:
            self.assertEqual(event.usage.generated_tokens, len(ids[event.output_index]))

    def test_a_prompt_seen_before_comes_from_the_cache_with_the_same_bits(self):
        request = text_request(text="Once upon a time there was a prompt of several blocks of tokens. " * 4)
        request.output.top_logprobs = 2
        cold, warm = generate(self.server, request), generate(self.server, request)
        self.assertEqual(cold.started.cached_prompt_tokens, 0)
        self.assertGreater(warm.started.cached_prompt_tokens, 0)
        self.assertEqual(warm.finished.usage.cached_prompt_tokens, warm.started.cached_prompt_tokens)
        self.assertEqual([token.SerializeToString() for token in warm.tokens],
                         [token.SerializeToString() for token in cold.tokens])

    def test_allowed_ids_and_bias_bind_the_choice(self):
        request = text_request(max_new_tokens=8)
        request.sampling.allowed_token_ids.extend([10, 20, 30])
        self.assertLessEqual(set(generate(self.server, request).ids), {10, 20, 30})
        request.sampling.logit_bias[20] = 100
        self.assertEqual(set(generate(self.server, request).ids), {20})

    def test_a_bad_word_is_not_written(self):
        whole = generate(self.server, text_request(max_new_tokens=24)).text
        word = max(whole.split()[1:-1], key=len)
        request = text_request(max_new_tokens=24)
        request.sampling.bad_words.append(word)
        self.assertNotIn(f" {word}", generate(self.server, request).text)

    def test_penalties_change_what_is_said_again(self):
        spread = {}
        for field, value in (("frequency_penalty", 2), ("presence_penalty", 2), ("repetition_penalty", 10)):
            request = text_request(max_new_tokens=32)
            setattr(request.sampling, field, value)
            spread[field] = len(set(generate(self.server, request).ids))
        for field, distinct in spread.items():
            self.assertGreater(distinct, len(set(generate(self.server, text_request(max_new_tokens=32)).ids)), field)

    def test_each_filter_at_its_narrowest_leaves_the_likeliest(self):
        greedy = generate(self.server, text_request()).ids
        for field, value in (("top_k", 1), ("top_p", 1e-6), ("min_p", 1)):
            request = text_request()
            request.sampling.temperature, request.sampling.seed = 1.5, 3
            setattr(request.sampling, field, value)
            self.assertEqual(generate(self.server, request).ids, greedy, field)

    def test_typical_p_leaves_the_tokens_nearest_to_the_expected_surprise(self):
        request = text_request(max_new_tokens=1)
        request.sampling.temperature, request.sampling.typical_p = 1, 1e-6
        chosen = set()
        for seed in range(8):
            request.sampling.seed = seed
            chosen.update(generate(self.server, request).ids)
        self.assertEqual(len(chosen), 1)  # one token stays, whatever the seed
        request.sampling.typical_p = 1
        for seed in range(8):
            request.sampling.seed = seed
            chosen.update(generate(self.server, request).ids)
        self.assertGreater(len(chosen), 1)

    def test_the_models_end_token_stops_unless_ignored_or_too_early(self):
        end = self.server.stub.GetModelInfo(pb.GetModelInfoRequest()).eos_token_ids[0]
        request = text_request(ignore_eos=False)
        request.sampling.logit_bias[end] = 100
        first = generate(self.server, request)
        self.assertEqual((first.ids, first.finished.reason), ([end], pb.Finished.STOP_EOS))
        self.assertEqual(first.finished.matched_stop_token_id, end)
        self.assertEqual(first.text, "")
        request.stop.min_new_tokens = 5
        later = generate(self.server, request)
        self.assertEqual((len(later.ids), later.finished.reason), (6, pb.Finished.STOP_EOS))
        self.assertNotIn(end, later.ids[:5])
        request.stop.ignore_eos = True
        request.stop.min_new_tokens = 0
        through = generate(self.server, request)
        self.assertEqual((through.ids, through.finished.reason), ([end] * 16, pb.Finished.LENGTH))

    def test_timings_follow_each_other(self):
        request = text_request()
        request.priority = pb.GenerateRequest.LOW
        answer = generate(self.server, request)
        timings = answer.finished.timings
        self.assertGreater(timings.queue_seconds, 0)
        self.assertLess(timings.queue_seconds, timings.time_to_first_token_seconds)
        self.assertLess(timings.time_to_first_token_seconds, timings.total_seconds)
        self.assertEqual(timings.preemptions, 0)
        self.assertEqual(answer.started.priority, pb.GenerateRequest.LOW)


class BatchTest(ServerTest):
    def signature(self, request):
        """Everything that must not depend on the batch: ids, and log-probabilities to the bit."""
        answer = generate(self.server, request)
        return [(token.id, token.logprob, tuple((t.id, t.logprob) for t in token.top)) for token in answer.tokens]

    def test_eight_clients_at_once_get_what_they_get_alone(self):
        requests = []
        for i in range(8):
            request = text_request(text=f"{i} And the king said unto " * (i + 1), max_new_tokens=24)
            request.output.top_logprobs = 3
            if i % 2:
                request.sampling.temperature = 0.9
                request.sampling.seed = i
            requests.append(request)
        alone = [self.signature(request) for request in requests]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(self.signature, requests))
        self.assertEqual(together, alone)
        self.assertEqual(len({str(signature) for signature in alone}), 8)  # they are eight different texts

    def test_traceparent_reaches_the_log_if_it_has_its_form(self):
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for name, value in (("traced", trace), ("untraced", trace.replace("0af7", "0AF7"))):
            request = text_request(max_new_tokens=1)
            request.priority = pb.GenerateRequest.HIGH
            request.request_id = name
            self.assertEqual(len(generate(self.server, request, metadata=(("traceparent", value),)).ids), 1)
        log = self.server.log()
        self.assertIn("id=untraced", log)
        self.assertIn(trace, next(line for line in log.splitlines() if "id=traced" in line))
        self.assertNotIn("0AF7", log)


if __name__ == "__main__":
    unittest.main(verbosity=2)
