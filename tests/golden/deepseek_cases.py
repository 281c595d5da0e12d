"""The golden cases of DeepSeek-V2 and V3 (make_golden.py). Gates of V3 get a random choice bias around `choice_bias`;
`stray_layer` adds tensors behind the last layer, as published files have them for multi-token prediction."""

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
YARN_MSCALE = dict(YARN, mscale=1.0, mscale_all_dim=0.6)
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

DEEPSEEK_CASES = {
    "deepseek_v2_lite_f16": dict(
        family="deepseek_v2",
        awkward="as V2-Lite: q_lora_rank null, greedy choice; 10 experts top-3, two shared; layer 0 dense; vocabulary 517, hidden 48",
        mistakes=[dict(routed_scaling_factor=1.0), dict(rope_parameters=dict(PLAIN_ROPE, rope_theta=500.0)), dict(num_experts_per_tok=2)],
        dtype="float16", spelling="new", shards=False,
        config=dict(vocab_size=517, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, q_lora_rank=None,
                    kv_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=12, n_routed_experts=10,
                    num_experts_per_tok=3, n_shared_experts=2, moe_intermediate_size=14, intermediate_size=36,
                    first_k_dense_replace=1, routed_scaling_factor=1.7, rms_norm_eps=1e-5,
                    rope_parameters=PLAIN_ROPE)),
    "deepseek_v2_groups_bf16": dict(
        family="deepseek_v2",
        awkward="q latent of 18, group_limited_greedy over 4 groups of 3, yarn with mscale 1 and mscale_all_dim 0.6; biases; old keys",
        mistakes=[dict(topk_method="greedy"), dict(topk_group=3), dict(attention_bias=False),
                  dict(rope_parameters=dict(YARN_MSCALE, mscale_all_dim=1.0)), dict(rope_parameters=YARN)],
        dtype="bfloat16", spelling="old", shards=False,
        config=dict(vocab_size=389, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, q_lora_rank=18,
                    kv_lora_rank=14, qk_nope_head_dim=6, qk_rope_head_dim=12, v_head_dim=9, n_routed_experts=12,
                    num_experts_per_tok=4, n_group=4, topk_group=2, topk_method="group_limited_greedy",
                    n_shared_experts=1, moe_intermediate_size=18, intermediate_size=30, first_k_dense_replace=0,
                    routed_scaling_factor=2.5, attention_bias=True, rope_parameters=YARN_MSCALE)),
    "deepseek_v3_f32": dict(
        family="deepseek_v3",
        awkward="10 experts in 5 groups of two, top-4 of 3 groups, most biased scores below 0; q latent; a stray layer for multi-token prediction",
        mistakes=[dict(norm_topk_prob=False), dict(routed_scaling_factor=1.0), dict(n_group=1, topk_group=1), dict(topk_group=4),
                  dict(rope_interleave=False)],
        dtype="float32", spelling="new", shards=False, stray_layer=True, choice_bias=-0.8,
        config=dict(vocab_size=261, hidden_size=44, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
                    q_lora_rank=22, kv_lora_rank=16, qk_nope_head_dim=12, qk_rope_head_dim=6, v_head_dim=10,
                    n_routed_experts=10, num_experts_per_tok=4, n_group=5, topk_group=3, n_shared_experts=1,
                    moe_intermediate_size=14, intermediate_size=30, first_k_dense_replace=1, norm_topk_prob=True,
                    routed_scaling_factor=2.5, rope_parameters=PLAIN_ROPE)),
    "deepseek_v3_yarn_bf16": dict(
        family="deepseek_v3",
        awkward="no q latent, one group of 6, not renormalised, halves rotate (rope_interleave false), yarn with mscale; tied; shards; old keys",
        mistakes=[dict(norm_topk_prob=True), dict(rope_interleave=True), dict(rope_parameters=YARN)],
        dtype="bfloat16", spelling="old", shards=True, choice_bias=0.1,
        config=dict(vocab_size=331, hidden_size=40, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=5,
                    q_lora_rank=None, kv_lora_rank=27, qk_nope_head_dim=9, qk_rope_head_dim=10, v_head_dim=16,
                    n_routed_experts=6, num_experts_per_tok=2, n_group=1, topk_group=1, n_shared_experts=2,
                    moe_intermediate_size=13, intermediate_size=28, first_k_dense_replace=1, norm_topk_prob=False,
                    routed_scaling_factor=1.5, tie_word_embeddings=True, rope_interleave=False,
                    rope_parameters=dict(YARN_MSCALE, mscale=1.0, mscale_all_dim=1.0))),
}
