#!/usr/bin/env python3
"""Makes the golden checkpoints: tiny random models of awkward sizes, and what transformers says of them.

    python3 tests/golden/make_golden.py            writes tests/golden/<case>/ and manifest.json
    python3 tests/golden/make_golden.py CASE...    the same for some cases
    python3 tests/golden/make_golden.py --check    compares the files with manifest.json; needs no package

The truth is transformers in float32 with eager attention, on the weights as the file has them (a bf16 or f16
file is rounded first, then loaded as float32). Prompts are searched for until no decision hangs on rounding:
the two best tokens of every greedy step, and every router's last chosen and first rejected expert, are well apart.
See README.md for the format of golden.json.
"""
import argparse
import hashlib
import json
import pathlib
import random
import shutil
import sys

from deepseek_cases import DEEPSEEK_CASES
from family_cases import FAMILY_CASES
from locmoe_cases import LOCMOE_CASES

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20251122
PROMPT_LENGTHS = [1, 5, 17, 40, 70]
NUM_TOKENS = 20
NUM_TOP = 5
MIN_TOKEN_GAP = 1e-2  # best minus second logit, every greedy step
MIN_ROUTER_GAP = 1e-4  # k-th minus (k+1)-th probability, every row and layer
MIN_SLOT_GAP = 3e-5  # between neighbours among the chosen: slot order
MAX_SELF_DIFFERENCE = 1e-3  # cached against whole-sequence log-probability: above it a case amplifies rounding
MIN_MISTAKE = 0.05  # what a wrong reading of config.json must do to some log-probability of the longest prompt
EOS = 0

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 1000000.0}

# Each case differs from the others in several keys at once; `awkward` says what it is for. `mistakes` are wrong
# readings of its config.json that the golden values must show, else the case would prove nothing about that key.
CASES = {
    "plain_f32": dict(
        awkward="hidden 36 (no multiple of 8), 6 experts top-3, vocabulary 517, heads 3:1 of 10, norm_topk_prob, theta 1e6",
        mistakes=[dict(norm_topk_prob=False), dict(rope_parameters=dict(DEFAULT_ROPE, rope_theta=10000.0)), dict(num_experts_per_tok=2)],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=517, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                    head_dim=10, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=20, intermediate_size=28,
                    norm_topk_prob=True, tie_word_embeddings=False, rope_parameters=DEFAULT_ROPE)),
    "head_dim_bf16": dict(
        awkward="head_dim 12 with hidden 40 and 5 heads (60 wide), one kv head, weights not renormalised, tied, old keys",
        mistakes=[dict(norm_topk_prob=True), dict(rope_parameters=dict(DEFAULT_ROPE, rope_theta=10000.0))],
        dtype="bfloat16", spelling="old", shards=False,
        config=dict(vocab_size=517, hidden_size=40, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1,
                    head_dim=12, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, intermediate_size=32,
                    norm_topk_prob=False, tie_word_embeddings=True, rope_parameters=DEFAULT_ROPE)),
    "mlp_only_f16": dict(
        awkward="decoder_sparse_step 2 and mlp_only_layers [1]: one MoE layer of four, dense width 44; biases; no head_dim key; shards",
        mistakes=[dict(attention_bias=False), dict(norm_topk_prob=False)],
        dtype="float16", spelling="new", shards=True,
        config=dict(vocab_size=389, hidden_size=50, num_hidden_layers=4, num_attention_heads=5, num_key_value_heads=5,
                    num_experts=5, num_experts_per_tok=2, moe_intermediate_size=18, intermediate_size=44,
                    norm_topk_prob=True, tie_word_embeddings=False, attention_bias=True, decoder_sparse_step=2,
                    mlp_only_layers=[1], rope_parameters=dict(DEFAULT_ROPE, rope_theta=10000.0))),
    "sparse_step_f32": dict(
        awkward="decoder_sparse_step 2: layers 1 and 3 route, dense width 22 below the experts'; biases; tied; epsilon 1e-5",
        mistakes=[dict(attention_bias=False), dict(norm_topk_prob=True), dict(rms_norm_eps=1e-2)],
        dtype="float32", spelling="old", shards=False,
        config=dict(vocab_size=301, hidden_size=28, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2,
                    head_dim=8, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=26, intermediate_size=22,
                    norm_topk_prob=False, tie_word_embeddings=True, attention_bias=True, decoder_sparse_step=2,
                    rms_norm_eps=1e-5, rope_parameters=dict(DEFAULT_ROPE, rope_theta=500000.0))),
    "yarn_f32": dict(
        awkward="yarn, factor 4 over 32 positions, attention factor from the formula; head_dim 16",
        mistakes=[dict(rope_parameters=dict(DEFAULT_ROPE, rope_theta=10000.0)), dict(rope_parameters=dict(YARN, attention_factor=1.0)),
                  dict(rope_parameters=dict(YARN, truncate=False))],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=331, hidden_size=36, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                    head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, intermediate_size=24,
                    norm_topk_prob=True, tie_word_embeddings=True, rope_parameters=YARN)),
    "yarn_factor_bf16": dict(
        awkward="yarn with attention_factor, beta_fast and beta_slow given; old rope_scaling keys; every expert chosen; shards",
        mistakes=[dict(rope_parameters=dict(YARN, beta_fast=1.0, beta_slow=0.1)), dict(rope_parameters=dict(YARN, attention_factor=1.3)),
                  dict(num_experts_per_tok=2)],
        dtype="bfloat16", spelling="old", shards=True,
        config=dict(vocab_size=517, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                    head_dim=14, num_experts=3, num_experts_per_tok=3, moe_intermediate_size=20, intermediate_size=24,
                    norm_topk_prob=False, tie_word_embeddings=False,
                    rope_parameters=dict(YARN, attention_factor=1.3, beta_fast=1.0, beta_slow=0.1))),
    "one_expert_f32": dict(
        awkward="one expert, top-1: its weight is 1 either way; one layer; hidden 50",
        mistakes=[dict(rope_parameters=dict(DEFAULT_ROPE, rope_theta=10000.0))],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=293, hidden_size=50, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
                    head_dim=6, num_experts=1, num_experts_per_tok=1, moe_intermediate_size=30, intermediate_size=30,
                    norm_topk_prob=False, tie_word_embeddings=True, rope_parameters=DEFAULT_ROPE)),
    "odd_bf16": dict(
        awkward="odd hidden 33 and expert width 7 (rows of bf16 off every boundary), 17 experts top-5, heads 8:4 of 2",
        mistakes=[dict(norm_topk_prob=False), dict(num_experts_per_tok=4)],
        dtype="bfloat16", spelling="new", shards=False,
        config=dict(vocab_size=419, hidden_size=33, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
                    head_dim=2, num_experts=17, num_experts_per_tok=5, moe_intermediate_size=7, intermediate_size=9,
                    norm_topk_prob=True, tie_word_embeddings=False, rope_parameters=DEFAULT_ROPE)),
}

CASES |= FAMILY_CASES | DEEPSEEK_CASES | LOCMOE_CASES

# Text for the tokenizers: enough for a hundred merges or two.
TOKENIZER_TEXT = [
    "The router sends each token to a few experts, and each expert answers the tokens that were sent to it.",
    "A token without an expert passes by; the sum of what remains is taken in the order of the experts.",
    "There are rows and there are columns, there is a gate before them, and a house behind the gate.",
    "Whether the weather be fine or whether the weather be not, we'll weather the weather together.",
    "It's here, it isn't there; they've come, they're gone, she'd say that we'll see them in 1812 or in 2025.",
]
TOKENIZER_SAMPLES = ["The gate before the house.", "We'll see 12 experts,  there\n\nor here", "caf\u00e9 \u2014 \u6771\u4eac \U0001f600", ""]
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def case_files(case_dir):
    return sorted(p for p in case_dir.iterdir() if p.is_file())


def check():
    manifest = json.loads((HERE / "manifest.json").read_text())
    problems = []
    for name, want in manifest["files"].items():
        path = HERE / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif sha256(path) != want["sha256"]:
            problems.append(f"{name}: sha256 {sha256(path)}, expected {want['sha256']}")
    for case in manifest["cases"]:
        for path in case_files(HERE / case) if (HERE / case).is_dir() else []:
            name = path.relative_to(HERE).as_posix()
            if name not in manifest["files"]:
                problems.append(f"{name}: not in manifest.json")
    for problem in problems:
        print(problem)
    print(f"{len(manifest['files'])} files in {len(manifest['cases'])} cases, {len(problems)} problems")
    return 1 if problems else 0


def make_tokenizer(path, vocab_size, qwen_style):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    tokenizer = Tokenizer(models.BPE())
    if qwen_style:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TOKENIZER_TEXT, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    assert tokenizer.token_to_id("<|endoftext|>") == EOS and tokenizer.get_vocab_size() <= vocab_size
    tokenizer.save(str(path))
    return [{"text": text, "ids": tokenizer.encode(text).ids} for text in TOKENIZER_SAMPLES]


def config_class(case):
    from transformers import CONFIG_MAPPING
    return CONFIG_MAPPING[case.get("family", "qwen3_moe")]


def make_model(case, config, seed):
    """Weights wide enough that logits, routers and attention are far from uniform, and no weight is a plain 1 or 0."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                scale = 1.6 if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0
                parameter.copy_(scale * (1.0 + 0.25 * noise))
            elif name.endswith("embed_tokens.weight"):
                parameter.copy_(0.5 * noise)
            elif name.endswith(".bias") or name.endswith("_bias"):
                parameter.copy_(0.3 * noise)
            elif name.endswith(".sinks"):
                parameter.copy_(noise)
            elif name.endswith(("mlp.gate.weight", "router.weight", "shared_expert_gate.weight")):
                parameter.copy_(0.4 * noise)
            elif config.model_type == "gpt_oss" and "experts" in name:  # [experts, inputs, outputs]
                parameter.copy_(1.6 / parameter.shape[-2] ** 0.5 * noise)
            else:
                parameter.copy_(1.6 / parameter.shape[-1] ** 0.5 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(case["choice_bias"] + 0.2 * torch.randn(buffer.shape, generator=generator))
    model.tie_weights()
    return model.eval()


def add_stray_layer(case_dir, num_layers):
    import torch
    from safetensors.torch import load_file, save_file
    tensors = load_file(case_dir / "model.safetensors")
    for name in ["eh_proj.weight", "input_layernorm.weight", "mlp.experts.0.up_proj.weight"]:
        tensors[f"model.layers.{num_layers}.{name}"] = torch.ones(3)
    save_file(tensors, case_dir / "model.safetensors", {"format": "pt"})


def say_no_rope(config_path):
    config = json.loads(config_path.read_text())
    config.pop("rope_parameters", None)
    config.pop("rope_theta", None)
    config["rope_scaling"] = None
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def old_spelling(config_path):
    """The keys of published checkpoints, from before transformers 5."""
    config = json.loads(config_path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "qwen3_moe":
        if "num_local_experts" in config:
            config["num_experts"] = config.pop("num_local_experts")
        config.update(max_window_layers=config["num_hidden_layers"], sliding_window=None, use_sliding_window=False)
    config.pop("layer_types", None)
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_checkpoint(case_dir, case, seed):
    import torch
    from transformers import GenerationConfig
    config = config_class(case)(max_position_embeddings=128, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS,
                                **case["config"])
    model = make_model(case, config, seed).to(getattr(torch, case["dtype"]))
    model.generation_config = GenerationConfig(bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS)
    limit = {"max_shard_size": 30_000} if case["shards"] else {}
    model.save_pretrained(case_dir, **limit)
    if case.get("stray_layer"):
        add_stray_layer(case_dir, config.num_hidden_layers)
    if case["spelling"] == "old":
        old_spelling(case_dir / "config.json")
    if case.get("says_no_rope"):
        say_no_rope(case_dir / "config.json")
    for path in case_files(case_dir):
        path.chmod(0o644)  # torch writes safetensors as 600


def gate_of(layer):
    block = layer.mlp if hasattr(layer, "mlp") else layer.block_sparse_moe
    return getattr(block, "gate", None) or getattr(block, "router", None)


def ranking_values(gate, logits):
    """What a gate ranks its experts by, those of closed groups far below; and the margin between open and closed groups."""
    import torch
    bias = getattr(gate, "e_score_correction_bias", None)
    values = logits.softmax(-1) if bias is None else logits.sigmoid() + bias
    margin = torch.full(logits.shape[:1], float("inf"))
    limited = bias is not None or getattr(gate, "topk_method", "greedy") == "group_limited_greedy"
    if limited and gate.topk_group < gate.num_group:
        groups = values.view(len(values), gate.num_group, -1)
        scores = groups.max(-1).values if bias is None else groups.topk(2, dim=-1).values.sum(-1)
        order = scores.sort(-1, descending=True)
        margin = order.values[:, gate.topk_group - 1] - order.values[:, gate.topk_group]
        closed = order.indices[:, gate.topk_group:]
        values = groups.scatter(1, closed[:, :, None].expand(-1, -1, groups.shape[2]), -1e9).view_as(values)
    return values, margin


class RouterRecorder:
    """Collects (ranking values, weights, experts, group margins) of each gate, row by row, in the order of the calls.
    Slots stand in the order of the ranking, which DeepSeek's unsorted top-k does not promise."""

    def __init__(self, model):
        gates = {i: gate_of(layer) for i, layer in enumerate(model.model.layers)}
        self.layers = [i for i, gate in gates.items() if gate is not None]
        self.calls = {i: [] for i in self.layers}
        for i in self.layers:
            gates[i].register_forward_hook(
                lambda gate, _a, out, i=i: self.calls[i].append(self.read(gate, *out)))

    @staticmethod
    def read(gate, logits, weights, experts):
        values, margin = ranking_values(gate, logits.detach())
        slots = values.gather(1, experts).argsort(-1, descending=True)
        return [values, weights.detach().gather(1, slots), experts.gather(1, slots), margin]

    def take(self):
        import torch
        found = {i: [torch.cat([call[part] for call in calls]) for part in range(4)] for i, calls in self.calls.items()}
        self.calls = {i: [] for i in self.layers}
        return found


def router_gaps(routes, top_k):
    """Smallest distance between the last chosen and the first rejected, and between neighbouring slots."""
    border, slots = float("inf"), float("inf")
    for values, _, _, margin in routes.values():
        border = min(border, margin.min().item())
        ordered = values.sort(-1, descending=True).values
        gaps = ordered[:, :-1] - ordered[:, 1:]
        if top_k < ordered.shape[1]:
            border = min(border, gaps[:, top_k - 1].min().item())
        if top_k > 1:
            slots = min(slots, gaps[:, : top_k - 1].min().item())
    return border, slots


def rounded(values, digits):
    return [round(float(v), digits) for v in values]


def try_prompt(model, recorder, prompt, top_k):
    """The golden record of one prompt, or None where a decision is too close to call."""
    import torch
    ids = torch.tensor([prompt])
    with torch.no_grad():
        model(ids, use_cache=False)
        border, slots = router_gaps(recorder.take(), top_k)
        if border < MIN_ROUTER_GAP or slots < MIN_SLOT_GAP:
            return None
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NUM_TOKENS,
                             use_cache=True, return_dict_in_generate=True, output_logits=True)
        cached_routes = recorder.take()
        tokens = out.sequences[0, len(prompt):].tolist()
        if EOS in tokens or len(tokens) != NUM_TOKENS:
            return None
        step_logits = torch.cat(out.logits).float()  # [tokens, vocab]
        best = step_logits.topk(2, dim=-1).values
        token_gap = (best[:, 0] - best[:, 1]).min().item()
        whole = model(out.sequences[:, :-1], use_cache=False).logits[0].float()  # [rows, vocab]
        routes = recorder.take()
    border, slots = router_gaps(routes, top_k)
    if token_gap < MIN_TOKEN_GAP or border < MIN_ROUTER_GAP or slots < MIN_SLOT_GAP:
        return None
    logprobs = step_logits.log_softmax(-1)
    whole_logprobs = whole.log_softmax(-1)
    difference = (whole_logprobs[len(prompt) - 1:] - logprobs).abs().max().item()
    assert difference < MAX_SELF_DIFFERENCE, difference
    for layer in recorder.layers:  # the same decisions one token at a time
        assert torch.equal(routes[layer][2], cached_routes[layer][2])
    top = logprobs.topk(NUM_TOP, dim=-1)
    record = {
        "prompt_ids": prompt,
        "prompt_logprobs": rounded((whole_logprobs[row, prompt[row + 1]] for row in range(len(prompt) - 1)), 6),
        "tokens": tokens,
        "logprobs": rounded((logprobs[step, token] for step, token in enumerate(tokens)), 6),
        "top_ids": top.indices.tolist(),
        "top_logprobs": [rounded(row, 6) for row in top.values],
        "routes": [{"layer": layer, "experts": routes[layer][2].tolist(),
                    "weights": [rounded(row, 7) for row in routes[layer][1]]} for layer in recorder.layers],
        "min_token_gap": round(token_gap, 6),
    }
    if border != float("inf"):
        record["min_router_gap"] = round(border, 8)
    return record, difference


def effect_of_mistakes(case, model, prompt):
    """Largest change of a log-probability of the longest prompt under each wrong reading; a small one is an error."""
    import torch
    from transformers import AutoModelForCausalLM
    ids = torch.tensor([prompt["prompt_ids"] + prompt["tokens"]])
    effects = {}
    for mistake in case["mistakes"]:
        config = config_class(case)(max_position_embeddings=128, **dict(case["config"], **mistake))
        wrong = AutoModelForCausalLM.from_config(config, attn_implementation="eager",
                                                 experts_implementation="eager")
        wrong.load_state_dict(model.state_dict(), strict=not {"attention_bias", "qkv_bias"} & set(mistake))
        with torch.no_grad():
            right_logprobs, wrong_logprobs = (
                m(ids, use_cache=False).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])
                for m in (model, wrong.eval()))
        effect = (right_logprobs - wrong_logprobs).abs().max().item()
        assert effect > MIN_MISTAKE, (mistake, effect)
        effects[json.dumps(mistake, sort_keys=True)] = round(effect, 3)
    return effects


def make_case(name, case, seed, tokenizer_is_qwen):
    import torch
    from transformers import AutoModelForCausalLM
    case_dir = HERE / name
    shutil.rmtree(case_dir, ignore_errors=True)
    case_dir.mkdir()
    write_checkpoint(case_dir, case, seed)
    vocab_size = case["config"]["vocab_size"]
    samples = make_tokenizer(case_dir / "tokenizer.json", vocab_size, tokenizer_is_qwen)

    model, report = AutoModelForCausalLM.from_pretrained(
        case_dir, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "mismatched_keys")), report
    assert bool(report["unexpected_keys"]) == case.get("stray_layer", False), report
    assert model.config._attn_implementation == "eager"
    recorder = RouterRecorder(model.eval())

    rng, prompts, largest_difference = random.Random(seed), [], 0.0
    for length in PROMPT_LENGTHS:
        for attempt in range(4000):
            prompt = [rng.randrange(1, vocab_size) for _ in range(length)]
            found = try_prompt(model, recorder, prompt, case["config"]["num_experts_per_tok"])
            if found is not None:
                break
        else:
            raise SystemExit(f"{name}: no prompt of {length} tokens without close decisions")
        prompts.append(found[0])
        largest_difference = max(largest_difference, found[1])
    golden = {
        "case": name, "what": case["awkward"], "seed": seed, "moe_layers": recorder.layers,
        "top_k": case["config"]["num_experts_per_tok"],
        # How far transformers disagrees with itself between cached and whole-sequence runs: the noise floor.
        "max_self_difference": float(f"{largest_difference:.2g}"),
        "effect_of_mistakes": effect_of_mistakes(case, model, prompts[-1]),
        "tokenizer_samples": samples,
        "prompts": prompts,
    }
    (case_dir / "golden.json").write_text(one_prompt_value_a_line(golden))
    size = sum(p.stat().st_size for p in case_files(case_dir))
    print(f"{name}: {size // 1024} KiB, min token gap {min(p['min_token_gap'] for p in prompts):.3f}, "
          f"self difference {largest_difference:.1e}", flush=True)


def make_case_by_numpy(name, case, seed, tokenizer_is_qwen):
    from locmoe_oracle import make_locmoe_golden
    shutil.rmtree(HERE / name, ignore_errors=True)
    (HERE / name).mkdir()
    samples = make_tokenizer(HERE / name / "tokenizer.json", case["config"]["vocab_size"], tokenizer_is_qwen)
    limits = dict(prompt_lengths=PROMPT_LENGTHS, num_tokens=NUM_TOKENS, num_top=NUM_TOP, token_gap=MIN_TOKEN_GAP,
                  router_gap=MIN_ROUTER_GAP, slot_gap=MIN_SLOT_GAP, mistake=MIN_MISTAKE)
    golden = make_locmoe_golden(name, case, seed, HERE / name, samples, limits)
    (HERE / name / "golden.json").write_text(one_prompt_value_a_line(golden))


def one_prompt_value_a_line(golden):
    """JSON that a diff can show: one line for each key of each prompt."""
    lines = ["{"]
    for key, value in golden.items():
        if key != "prompts":
            lines.append(f" {json.dumps(key)}: {json.dumps(value)},")
    bodies = []
    for prompt in golden["prompts"]:
        body = [f"   {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in prompt.items()]
        bodies.append("  {\n" + ",\n".join(body) + "\n  }")
    return "\n".join(lines) + '\n "prompts": [\n' + ",\n".join(bodies) + "\n ]\n}\n"


def write_manifest():
    import safetensors
    import tokenizers
    import torch
    import transformers
    files = {}
    for case in CASES:
        for path in case_files(HERE / case):
            files[path.relative_to(HERE).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = {
        "seed": SEED,
        "command": "python3 tests/golden/make_golden.py",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__.split("+")[0],
                     "transformers": transformers.__version__, "safetensors": safetensors.__version__,
                     "tokenizers": tokenizers.__version__},
        "cases": list(CASES),
        "files": files,
    }
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{sum(f['bytes'] for f in files.values()) // 1024} KiB in all")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="make these alone (default: all)")
    parser.add_argument("--check", action="store_true", help="compare the files with manifest.json and stop")
    args = parser.parse_args()
    if args.check:
        return check()
    import torch
    import transformers
    torch.set_num_threads(1)  # sums in one order
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for index, (name, case) in enumerate(CASES.items()):
        if not args.cases or name in args.cases:
            make = make_case_by_numpy if name in LOCMOE_CASES else make_case
            make(name, case, SEED + index, tokenizer_is_qwen=index % 2 == 0)
    write_manifest()
    return 0


if __name__ == "__main__":
    sys.exit(main())
