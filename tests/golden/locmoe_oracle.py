"""What is true of the golden cases of gatehouse_locmoe, which transformers does not know: a second implementation in
numpy, in float64, written from the definition of the family (models/locmoe/README.md): Qwen3-MoE with a gate of its own.
A case's `max_self_difference` is float32 against float64."""
import json
import math
import random
import struct

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Oracle:
    """The whole sequence at once, no cache. weights: name -> array, as the file has them."""

    def __init__(self, config, weights, dtype):
        self.c, self.dtype = config, dtype
        self.w = {name: value.astype(dtype) for name, value in weights.items()}

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.dtype(1e-6)) * self.w[name]

    def linear(self, x, prefix):
        y = x @ self.w[prefix + ".weight"].T
        return y + self.w[prefix + ".bias"] if self.c.get("attention_bias") else y

    def rotate(self, x):  # [rows, heads, dim]
        half = x.shape[-1] // 2
        angle = np.arange(len(x))[:, None] / self.c["rope_theta"] ** (np.arange(half) * 2 / x.shape[-1])
        cos, sin = np.cos(angle)[:, None].astype(self.dtype), np.sin(angle)[:, None].astype(self.dtype)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, x, layer):
        c, rows = self.c, len(x)
        q, k, v = (self.linear(x, f"{layer}.self_attn.{part}_proj").reshape(rows, -1, c["head_dim"]) for part in "qkv")
        q = self.rotate(self.norm(q, f"{layer}.self_attn.q_norm.weight"))
        k = self.rotate(self.norm(k, f"{layer}.self_attn.k_norm.weight"))
        group = c["num_attention_heads"] // c["num_key_value_heads"]
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("rhd,shd->hrs", q, k) / self.dtype(math.sqrt(c["head_dim"]))
        scores = np.where(np.tri(rows, dtype=bool), scores, self.dtype(-np.inf))
        heads = np.einsum("hrs,shd->rhd", softmax(scores), v).reshape(rows, -1)
        return self.linear(heads, f"{layer}.self_attn.o_proj")

    def mlp(self, x, prefix):
        gate, up = (x @ self.w[f"{prefix}.{part}_proj.weight"].T for part in ("gate", "up"))
        return (gate / (1 + np.exp(-gate)) * up) @ self.w[f"{prefix}.down_proj.weight"].T

    def gate_rows(self, layer):
        c = self.c
        if c["gate"] == "learned":
            return self.w[f"{layer}.mlp.gate.weight"]
        n, d = c["num_experts"], c["hidden_size"]
        rows = np.zeros((n, d), self.dtype)
        for i in range(n):
            rows[i, i * (d // n):(i + 1) * (d // n)] = self.dtype(n / d)
        return rows

    def moe(self, x, layer):
        """The output, and P, weights and experts of each row."""
        c, rows = self.c, self.gate_rows(layer)
        select = x @ rows.T
        logits = select
        if c.get("affinity", "cosine") == "cosine":
            lengths = np.linalg.norm(x, axis=-1, keepdims=True) + self.dtype(1e-9)
            select = select / (lengths * np.linalg.norm(rows, axis=-1))
            logits = self.dtype(c.get("router_scale", math.sqrt(c["hidden_size"]))) * select
        p = softmax(logits)
        experts = np.argsort(-select, axis=-1, kind="stable")[:, :c["num_experts_per_tok"]]
        weights = np.take_along_axis(p, experts, -1)
        if c.get("norm_topk_prob"):
            weights = weights / weights.sum(-1, keepdims=True)
        out = np.zeros_like(x)
        for e in range(c["num_experts"]):
            chosen, slots = np.nonzero(experts == e)
            if len(chosen):
                y = self.mlp(x[chosen], f"{layer}.mlp.experts.{e}")
                np.add.at(out, chosen, weights[chosen, slots][:, None] * y)
        return out, (p, weights, experts)

    def is_moe(self, i):
        return (i + 1) % self.c.get("decoder_sparse_step", 1) == 0 and i not in self.c.get("mlp_only_layers", [])

    def run(self, ids):
        """Log-probabilities [rows, vocab], and the routes of each MoE layer."""
        routes = {}
        x = self.w["model.embed_tokens.weight"][np.array(ids)]
        for i in range(self.c["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            x = x + self.attention(self.norm(x, f"{layer}.input_layernorm.weight"), layer)
            y = self.norm(x, f"{layer}.post_attention_layernorm.weight")
            if self.is_moe(i):
                y, routes[i] = self.moe(y, layer)
            else:
                y = self.mlp(y, f"{layer}.mlp")
            x = x + y
        head = self.w["model.embed_tokens.weight" if self.c.get("tie_word_embeddings") else "lm_head.weight"]
        logits = (self.norm(x, "model.norm.weight") @ head.T).astype(np.float64)
        return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) \
            - logits.max(-1, keepdims=True), routes


def to_bf16(values):
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def make_weights(case, seed):
    """name -> float32, rounded to what the file holds."""
    c, rng, weights = case["config"], np.random.default_rng(seed), {}

    def add(name, shape, scale, mean=0.0):
        value = (mean + scale * rng.standard_normal(shape)).astype(np.float32)
        if case["dtype"] == "BF16":
            value = (to_bf16(value).astype(np.uint32) << 16).view(np.float32)
        weights[name] = value

    def matrix(name, outputs, inputs):
        add(name, (outputs, inputs), 1.6 / inputs ** 0.5)

    d, head_dim = c["hidden_size"], c["head_dim"]
    q_width, kv_width = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
    oracle = Oracle(c, {}, np.float32)
    add("model.embed_tokens.weight", (c["vocab_size"], d), 0.5)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            add(f"{layer}.{norm}.weight", d, 0.25, 1.0)
        for part, outputs, inputs in (("q", q_width, d), ("k", kv_width, d), ("v", kv_width, d), ("o", d, q_width)):
            matrix(f"{layer}.self_attn.{part}_proj.weight", outputs, inputs)
            if c.get("attention_bias"):
                add(f"{layer}.self_attn.{part}_proj.bias", outputs, 0.3)
        for part in "qk":
            add(f"{layer}.self_attn.{part}_norm.weight", head_dim, 0.4, 1.6)
        if oracle.is_moe(i):
            prefixes = [(f"{layer}.mlp.experts.{e}", c["moe_intermediate_size"]) for e in range(c["num_experts"])]
            if c["gate"] == "learned":
                add(f"{layer}.mlp.gate.weight", (c["num_experts"], d), 0.4)
        else:
            prefixes = [(f"{layer}.mlp", c["intermediate_size"])]
        for prefix, width in prefixes:
            matrix(f"{prefix}.gate_proj.weight", width, d)
            matrix(f"{prefix}.up_proj.weight", width, d)
            matrix(f"{prefix}.down_proj.weight", d, width)
    add("model.norm.weight", d, 0.25, 1.0)
    if not c.get("tie_word_embeddings"):
        matrix("lm_head.weight", c["vocab_size"], d)
    return weights


def write_checkpoint(case_dir, case, weights):
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(weights):
        raw = (to_bf16(weights[name]) if case["dtype"] == "BF16" else weights[name]).tobytes()
        header[name] = {"dtype": case["dtype"], "shape": list(weights[name].shape),
                        "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (case_dir / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    ends = dict(bos_token_id=0, eos_token_id=0)
    config = dict(case["config"], model_type="gatehouse_locmoe", hidden_act="silu", rms_norm_eps=1e-6,
                  max_position_embeddings=128, **ends)
    (case_dir / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (case_dir / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n")


def router_gaps(routes, top_k):
    border, slots = float("inf"), float("inf")
    for p, _, _ in routes.values():
        gaps = -np.diff(-np.sort(-p, axis=-1), axis=-1)
        border = min(border, gaps[:, top_k - 1].min())
        slots = min([slots, *gaps[:, :top_k - 1].ravel()])
    return border, slots


def try_prompt(oracle, prompt, limits):
    """The golden record of one prompt, or None where a decision is too close to call."""
    top_k, ids, gaps = oracle.c["num_experts_per_tok"], list(prompt), []
    for _ in range(limits["num_tokens"]):
        logprobs, routes = oracle.run(ids)
        border, slots = router_gaps(routes, top_k)
        best = np.sort(logprobs[-1])[-2:]
        gaps.append(best[1] - best[0])
        ids.append(int(logprobs[-1].argmax()))
        if ids[-1] == 0 or gaps[-1] < limits["token_gap"] or border < limits["router_gap"] or slots < limits["slot_gap"]:
            return None
    logprobs, routes = oracle.run(ids[:-1])
    n = len(prompt)
    steps = logprobs[n - 1:]
    top = np.argsort(-steps, axis=-1, kind="stable")[:, :limits["num_top"]]

    def rounded(values, digits):
        return [round(float(v), digits) for v in values]

    return {
        "prompt_ids": prompt,
        "prompt_logprobs": rounded((logprobs[r, prompt[r + 1]] for r in range(n - 1)), 6),
        "tokens": ids[n:],
        "logprobs": rounded((steps[i, token] for i, token in enumerate(ids[n:])), 6),
        "top_ids": top.tolist(),
        "top_logprobs": [rounded(row, 6) for row in np.take_along_axis(steps, top, -1)],
        "routes": [{"layer": layer, "experts": experts.tolist(), "weights": [rounded(row, 7) for row in weights]}
                   for layer, (_, weights, experts) in routes.items()],
        "min_token_gap": round(float(min(gaps)), 6),
        "min_router_gap": round(float(border), 8),
    }


def largest_change(oracle, other, record):
    """Of a log-probability of the text between two oracles."""
    ids = record["prompt_ids"] + record["tokens"]
    rows, next_ids = np.arange(len(ids) - 1), ids[1:]
    return float(np.abs((oracle.run(ids)[0] - other.run(ids)[0])[rows, next_ids]).max())


def make_locmoe_golden(name, case, seed, case_dir, samples, limits):
    """Writes the checkpoint; returns what golden.json says."""
    weights = make_weights(case, seed)
    write_checkpoint(case_dir, case, weights)
    oracle = Oracle(case["config"], weights, np.float64)
    rng, prompts = random.Random(seed), []
    for length in limits["prompt_lengths"]:
        for _ in range(4000):
            record = try_prompt(oracle, [rng.randrange(1, case["config"]["vocab_size"]) for _ in range(length)], limits)
            if record is not None:
                break
        else:
            raise SystemExit(f"{name}: no prompt of {length} tokens without close decisions")
        prompts.append(record)
    effects = {}
    for mistake in case["mistakes"]:
        wrong = Oracle(dict(case["config"], **mistake), weights, np.float64)
        effect = largest_change(oracle, wrong, prompts[-1])
        assert effect > limits["mistake"], (mistake, effect)
        effects[json.dumps(mistake, sort_keys=True)] = round(effect, 3)
    narrow = Oracle(case["config"], weights, np.float32)
    difference = max(largest_change(oracle, narrow, record) for record in prompts)
    return {"case": name, "what": case["awkward"], "seed": seed,
            "moe_layers": [r["layer"] for r in prompts[0]["routes"]], "top_k": case["config"]["num_experts_per_tok"],
            "max_self_difference": float(f"{difference:.2g}"), "effect_of_mistakes": effects,
            "tokenizer_samples": samples, "prompts": prompts}
