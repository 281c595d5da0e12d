"""The golden cases of gatehouse_locmoe; make_golden.py says what the keys mean, locmoe_oracle.py what is true of them."""

LOCMOE_CASES = {
    "locmoe_grap_f32": dict(
        family="gatehouse_locmoe",
        awkward="grap: 6 experts of 8 channels each, hidden 48, vocabulary 517, layer 1 dense, tied, router_scale left to sqrt(48)",
        mistakes=[dict(router_scale=1.0), dict(affinity="dot"), dict(norm_topk_prob=False), dict(rope_theta=1e4)],
        dtype="F32",
        config=dict(gate="grap", vocab_size=517, hidden_size=48, num_hidden_layers=3, num_attention_heads=3,
                    num_key_value_heads=1, head_dim=10, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12,
                    intermediate_size=22, mlp_only_layers=[1], norm_topk_prob=True, tie_word_embeddings=True, rope_theta=1e6,
                    capacity_factor=1.25, affinity_mass=0.95, capacity_floor=25, drop_order="affinity", combine="softmax")),
    "locmoe_cosine_bf16": dict(
        family="gatehouse_locmoe",
        awkward="learned rows of unlike length by cosine: 10 experts top-3, hidden 36, not renormalised, biases",
        mistakes=[dict(router_scale=6.0), dict(affinity="dot"), dict(norm_topk_prob=True), dict(attention_bias=False)],
        dtype="BF16",
        config=dict(gate="learned", affinity="cosine", router_scale=9.5, vocab_size=517, hidden_size=36,
                    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=10,
                    num_experts_per_tok=3, moe_intermediate_size=11, intermediate_size=9,
                    attention_bias=True, rope_theta=1e4)),
    "locmoe_dot_f32": dict(
        family="gatehouse_locmoe",
        awkward="learned rows by product, whose router_scale means nothing; 5 experts, every second layer dense",
        mistakes=[dict(affinity="cosine"), dict(num_experts_per_tok=1)],
        dtype="F32",
        config=dict(gate="learned", affinity="dot", router_scale=40.0, vocab_size=331, hidden_size=30,
                    num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=3, head_dim=6, num_experts=5,
                    num_experts_per_tok=2, moe_intermediate_size=13, intermediate_size=21, decoder_sparse_step=2,
                    norm_topk_prob=True, rope_theta=5e4)),
}
