#!/usr/bin/env python3
"""Writes a Qwen3-MoE checkpoint with random bf16 weights, for benchmarks. Needs numpy only.

usage: make_random_model.py OUTDIR [--hidden 1024 --layers 24 --heads 16 --kv-heads 8 --head-dim 64
                                    --experts 32 --top-k 8 --intermediate 512 --vocab 49152]

The defaults are "model Q" of docs/bench/METHOD.md: 1,384,960,000 parameters, 2.8 GB. Weights are normal(0, 0.02),
seeded per tensor by crc32 of its name; norm weights are 1. Routing of such a model is near uniform. The tokenizer is a
crafted byte-level BPE: 256 bytes, consonant-vowel pairs, their concatenations with and without a leading space.
"""
import argparse
import json
import pathlib
import zlib

import numpy as np


def to_bf16(x):
    """Nearest even, as uint16."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def random_tensor(name, *shape):
    rng = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    return to_bf16(rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02))


def ones(*shape):
    return np.full(shape, 0x3F80, np.uint16)


def save_safetensors(path, tensors):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            tensor.tofile(file)


def byte_alphabet():
    """GPT-2's 256 printable characters that stand for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return sorted([chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))])


def make_tokenizer(vocab_size):
    vocab = {c: i for i, c in enumerate(byte_alphabet())}
    merges = []

    def add(a, b):
        if a + b not in vocab and len(vocab) < vocab_size - 1:
            vocab[a + b] = len(vocab)
            merges.append(f"{a} {b}")

    pairs = [c + v for c in "bcdfghjklmnpqrstvwxyz" for v in "aeiou"]
    for p in pairs:
        add(p[0], p[1])
    for p in pairs:
        for q in pairs:
            add(p, q)
    for p in pairs:
        for q in pairs:
            add("\u0120", p + q)
    for p in pairs:
        for q in pairs:
            for r in pairs:
                add(p + q, r)
    end = vocab_size - 1
    assert len(vocab) == end, f"{len(vocab)} entries, expected {end}"
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": end, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True}],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": False, "vocab": vocab, "merges": merges}}


def layer_tensors(a, prefix):
    q_size, kv_size = a.heads * a.head_dim, a.kv_heads * a.head_dim
    tensors = {prefix + "input_layernorm.weight": ones(a.hidden),
               prefix + "post_attention_layernorm.weight": ones(a.hidden),
               prefix + "self_attn.q_norm.weight": ones(a.head_dim),
               prefix + "self_attn.k_norm.weight": ones(a.head_dim)}
    shapes = {"self_attn.q_proj": (q_size, a.hidden), "self_attn.k_proj": (kv_size, a.hidden),
              "self_attn.v_proj": (kv_size, a.hidden), "self_attn.o_proj": (a.hidden, q_size),
              "mlp.gate": (a.experts, a.hidden)}
    for e in range(a.experts):
        shapes[f"mlp.experts.{e}.gate_proj"] = (a.intermediate, a.hidden)
        shapes[f"mlp.experts.{e}.up_proj"] = (a.intermediate, a.hidden)
        shapes[f"mlp.experts.{e}.down_proj"] = (a.hidden, a.intermediate)
    for name, shape in shapes.items():
        tensors[f"{prefix}{name}.weight"] = random_tensor(f"{prefix}{name}.weight", *shape)
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outdir", type=pathlib.Path)
    for name, default in [("hidden", 1024), ("layers", 24), ("heads", 16), ("kv-heads", 8), ("head-dim", 64),
                          ("experts", 32), ("top-k", 8), ("intermediate", 512), ("vocab", 49152),
                          ("context", 4096)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    a.outdir.mkdir(parents=True, exist_ok=True)
    end = a.vocab - 1
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": a.hidden,
              "num_hidden_layers": a.layers, "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads,
              "head_dim": a.head_dim, "num_experts": a.experts, "num_experts_per_tok": a.top_k,
              "moe_intermediate_size": a.intermediate, "intermediate_size": 4 * a.intermediate,
              "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": a.vocab,
              "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
              "max_position_embeddings": a.context, "attention_bias": False, "tie_word_embeddings": False,
              "use_sliding_window": False, "torch_dtype": "bfloat16", "eos_token_id": end, "bos_token_id": None}
    (a.outdir / "config.json").write_text(json.dumps(config, indent=1))
    (a.outdir / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    (a.outdir / "tokenizer.json").write_text(json.dumps(make_tokenizer(a.vocab), ensure_ascii=False))
    weight_map, total = {}, 0
    for shard in range(a.layers + 1):
        if shard < a.layers:
            tensors = layer_tensors(a, f"model.layers.{shard}.")
        else:
            tensors = {"model.norm.weight": ones(a.hidden)}
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                tensors[name] = random_tensor(name, a.vocab, a.hidden)
        file = f"model-{shard + 1:05d}-of-{a.layers + 1:05d}.safetensors"
        save_safetensors(a.outdir / file, tensors)
        for name, tensor in tensors.items():
            weight_map[name] = file
            total += tensor.size
    index = {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
    (a.outdir / "model.safetensors.index.json").write_text(json.dumps(index))
    print(f"{total} parameters in {a.outdir}")


if __name__ == "__main__":
    main()
