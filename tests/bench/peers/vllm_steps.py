#!/usr/bin/env python3
"""vLLM's rates on a model, offline: prefill of 512 tokens, decode of 1, 8 and 32 sequences. JSON lines as model_bench's.

usage: VLLM_CPU_OMP_THREADS_BIND=0-1 vllm_steps.py MODEL_DIR [--rounds 3]

Without the variable vLLM keeps one core of two for its front end. A decode rate is that of 32 steps: the time of 33 new
tokens less that of one, from the same prompts of 16 tokens.
"""
import argparse
import json
import os
import random
import statistics
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from vllm import LLM, SamplingParams

    llm = LLM(model=args.model, dtype="bfloat16", max_model_len=1024, max_num_seqs=32, enforce_eager=True,
              enable_prefix_caching=False, seed=0)
    rng = random.Random(0)

    def seconds(batch, prompt_tokens, new_tokens):
        prompts = [{"prompt_token_ids": [rng.randrange(256, 49000) for _ in range(prompt_tokens)]}
                   for _ in range(batch)]
        begin = time.perf_counter()
        llm.generate(prompts, SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True), use_tqdm=False)
        return time.perf_counter() - begin

    def show(measure, rates, **more):
        print(json.dumps({"measure": measure, **more, "tokens_per_second": statistics.median(rates)}), flush=True)

    seconds(1, 512, 4)
    show("prefill", [512 / seconds(1, 512, 1) for _ in range(args.rounds)], tokens=512)
    for batch in (1, 8, 32):
        rates = [32 * batch / (-seconds(batch, 16, 1) + seconds(batch, 16, 33)) for _ in range(args.rounds)]
        show("decode", rates, batch=batch)


if __name__ == "__main__":
    main()
