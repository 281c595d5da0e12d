#!/usr/bin/env python3
"""llama.cpp's rates on a model through its C interface: prefill of 512 tokens, decode of 1, 8 and 32 sequences at a context
of 160. JSON lines as model_bench's; each rate is the median of the rounds, after one round that is not counted.

usage: llama_steps.py MODEL.gguf [--threads 2] [--rounds 5]
       llama_steps.py MODEL.gguf --quantize Q4_0 OUT.gguf
"""
import argparse
import ctypes
import json
import random
import statistics
import sys
import time

import llama_cpp as ll

PREFILL = 512
CONTEXT = 160
DECODE_STEPS = 16


class Session:
    def __init__(self, path, threads, num_sequences):
        params = ll.llama_model_default_params()
        self.model = ll.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"{path}: not loaded")
        params = ll.llama_context_default_params()
        params.n_ctx = num_sequences * 512 if num_sequences > 1 else 1024
        params.n_batch = params.n_ubatch = PREFILL
        params.n_seq_max = num_sequences
        params.n_threads = params.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, params)
        self.batch = ll.llama_batch_init(PREFILL, 0, 1)
        self.rng = random.Random(1)

    def close(self):
        ll.llama_batch_free(self.batch)
        ll.llama_free(self.context)
        ll.llama_model_free(self.model)

    def clear(self):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)

    def decode(self, rows):
        """Computes `rows` of (sequence, position, whether logits are wanted) with random tokens."""
        self.batch.n_tokens = len(rows)
        for i, (sequence, position, logits) in enumerate(rows):
            self.batch.token[i] = self.rng.randrange(256, 49000)
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        begin = time.perf_counter()
        if ll.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama_decode failed")
        ll.llama_synchronize(self.context)
        return time.perf_counter() - begin


def show(measure, rates, **more):
    print(json.dumps({"measure": measure, **more, "tokens_per_second": statistics.median(rates)}), flush=True)


def prefill(path, args):
    session = Session(path, args.threads, 1)
    rates = []
    for _ in range(args.rounds + 1):
        session.clear()
        rates.append(PREFILL / session.decode([(0, i, i == PREFILL - 1) for i in range(PREFILL)]))
    session.close()
    show("prefill", rates[1:], tokens=PREFILL)


def decode(path, args, batch):
    session = Session(path, args.threads, batch)
    rates = []
    for _ in range(args.rounds + 1):
        session.clear()
        for sequence in range(batch):
            session.decode([(sequence, i, False) for i in range(CONTEXT)])
        seconds = [session.decode([(s, CONTEXT + i, True) for s in range(batch)]) for i in range(DECODE_STEPS)]
        rates.append(batch / statistics.median(seconds))
    session.close()
    show("decode", rates[1:], batch=batch)


def quantize(source, kind, target):
    params = ll.llama_model_quantize_default_params()
    params.ftype = {"Q4_0": ll.LLAMA_FTYPE_MOSTLY_Q4_0, "Q8_0": ll.LLAMA_FTYPE_MOSTLY_Q8_0}[kind]
    if ll.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
        sys.exit(f"{source}: not quantised")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--quantize", nargs=2, metavar=("KIND", "OUT"))
    args = parser.parse_args()
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    ll.llama_log_set(silent, ctypes.c_void_p(0))
    ll.llama_backend_init()
    if args.quantize:
        quantize(args.model, *args.quantize)
        return
    prefill(args.model, args)
    for batch in args.batches:
        decode(args.model, args, batch)


if __name__ == "__main__":
    main()
