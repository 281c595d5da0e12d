"""The golden cases of the families beside Qwen3-MoE, two sizes each; make_golden.py says what the keys mean."""

THETA = {"rope_type": "default", "rope_theta": 20000.0}

FAMILY_CASES = {
    "mixtral_f32": dict(
        family="mixtral", awkward="no window, 5 experts top-2, hidden 36, heads 3:1 of 10, theta left to its default of 1e6",
        mistakes=[dict(num_experts_per_tok=1), dict(rope_parameters=THETA)],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=317, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                    head_dim=10, num_local_experts=5, num_experts_per_tok=2, intermediate_size=20)),
    "mixtral_window_bf16": dict(
        family="mixtral", awkward="window 17 on all layers, heads 4:2, 10 experts top-3, old keys, 7 shards, tied",
        mistakes=[dict(sliding_window=None), dict(sliding_window=16), dict(rope_parameters=dict(THETA, rope_theta=1e6))],
        dtype="bfloat16", spelling="old", shards=True,
        config=dict(vocab_size=517, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                    num_local_experts=10, num_experts_per_tok=3, intermediate_size=14, sliding_window=17,
                    tie_word_embeddings=True, rope_parameters=THETA)),
    "qwen2_moe_f32": dict(
        family="qwen2_moe", awkward="shared expert wider than the others, biases on q, k, v by default, layer 1 dense, no window",
        mistakes=[dict(norm_topk_prob=True), dict(qkv_bias=False)],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=301, hidden_size=30, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=5,
                    num_experts=6, num_experts_per_tok=2, moe_intermediate_size=14, intermediate_size=22,
                    shared_expert_intermediate_size=33, mlp_only_layers=[1])),
    "qwen2_moe_window_bf16": dict(
        family="qwen2_moe", awkward="layers 0 and 2 of 5 slide by the rule for even layers, no biases, every second layer dense, old keys",
        mistakes=[dict(use_sliding_window=False), dict(max_window_layers=5), dict(max_window_layers=2), dict(norm_topk_prob=False)],
        dtype="bfloat16", spelling="old", shards=False,
        config=dict(vocab_size=419, hidden_size=48, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
                    num_experts=10, num_experts_per_tok=3, moe_intermediate_size=10, intermediate_size=26,
                    shared_expert_intermediate_size=18, norm_topk_prob=True, decoder_sparse_step=2, qkv_bias=False,
                    use_sliding_window=True, sliding_window=11, max_window_layers=4, rope_parameters=THETA)),
    "olmoe_f32": dict(
        family="olmoe", awkward="norms over all of q and k, clip_qkv 1.25, heads 6:2 of 6, 9 experts top-4",
        mistakes=[dict(clip_qkv=None), dict(clip_qkv=2.0), dict(norm_topk_prob=True)],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=331, hidden_size=36, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                    num_experts=9, num_experts_per_tok=4, intermediate_size=15, clip_qkv=1.25)),
    "olmoe_f16": dict(
        family="olmoe", awkward="no clip, biases on all four projections, weights renormalised, as many kv heads as heads, shards",
        mistakes=[dict(attention_bias=False), dict(norm_topk_prob=False)],
        dtype="float16", spelling="old", shards=True,
        config=dict(vocab_size=293, hidden_size=40, num_hidden_layers=3, num_attention_heads=4, num_experts=6,
                    num_experts_per_tok=2, intermediate_size=24, attention_bias=True, norm_topk_prob=True,
                    tie_word_embeddings=True)),
    "granite_f32": dict(
        family="granitemoe", awkward="all four factors away from 1, 6 experts top-3 of width 21 in fused tensors",
        mistakes=[dict(embedding_multiplier=1.0), dict(attention_multiplier=1.0), dict(residual_multiplier=1.0),
                  dict(logits_scaling=1.0)],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=331, hidden_size=36, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                    num_local_experts=6, num_experts_per_tok=3, intermediate_size=21, embedding_multiplier=3.0,
                    attention_multiplier=0.2, residual_multiplier=0.7, logits_scaling=0.6)),
    "granite_bf16": dict(
        family="granitemoe", awkward="factors left to their default of 1 but one, biases, tied, shards that cut between fused tensors",
        mistakes=[dict(attention_multiplier=1.0), dict(attention_bias=False)],
        dtype="bfloat16", spelling="old", shards=True,
        config=dict(vocab_size=517, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3,
                    num_local_experts=10, num_experts_per_tok=2, intermediate_size=17, attention_multiplier=0.3,
                    attention_bias=True, tie_word_embeddings=True, rope_parameters=THETA)),
    "gpt_oss_bf16": dict(
        family="gpt_oss", awkward="no word on rope, which means yarn of factor 32; window 9 on even layers; old keys; 6 experts top-2",
        mistakes=[dict(rope_parameters=dict(THETA, rope_theta=150000.0)), dict(sliding_window=10), dict(swiglu_alpha=1.0),
                  dict(layer_types=["full_attention"] * 3)],
        dtype="bfloat16", spelling="old", shards=False, says_no_rope=True,
        config=dict(vocab_size=517, hidden_size=36, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                    head_dim=12, num_local_experts=6, num_experts_per_tok=2, intermediate_size=18, sliding_window=9)),
    "gpt_oss_f32": dict(
        family="gpt_oss", awkward="plain rope as given, odd layers slide, a limit of 1.5 that clamps, no biases on projections, 7 experts top-3",
        mistakes=[dict(swiglu_limit=7.0), dict(layer_types=["sliding_attention", "full_attention"]), dict(rope_parameters=None)],
        dtype="float32", spelling="new", shards=True,
        config=dict(vocab_size=317, hidden_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
                    head_dim=10, num_local_experts=7, num_experts_per_tok=3, intermediate_size=13, sliding_window=23,
                    swiglu_limit=1.5, attention_bias=False, layer_types=["full_attention", "sliding_attention"],
                    rope_parameters=dict(THETA))),
    "qwen3_window_f32": dict(
        family="qwen3_moe", awkward="one window, of 13, on all layers",
        mistakes=[dict(use_sliding_window=False), dict(sliding_window=12)],
        dtype="float32", spelling="new", shards=False,
        config=dict(vocab_size=293, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                    head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, intermediate_size=24,
                    norm_topk_prob=True, use_sliding_window=True, sliding_window=13, rope_parameters=THETA)),
}
