#!/usr/bin/env python3
"""Writes rope_golden.json: what transformers computes for some rope configurations.

  pip install torch transformers==5.23.0
  python3 tests/model/make_rope_golden.py > tests/model/rope_golden.json
"""
import json
import struct

from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRotaryEmbedding

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
CASES = {
    "no_rope_keys": {},
    "theta_old_spelling": {"rope_theta": 1e6, "rope_scaling": None, "head_dim": 128},
    "theta_new_spelling": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "head_dim": 64,
    },
    "theta_inside_wins": {"rope_parameters": {"rope_theta": 7.0}, "rope_theta": 9.0},
    "empty_scaling": {"rope_scaling": {}, "rope_parameters": {"rope_theta": 7.0}},
    "scaling_wins_over_parameters": {
        "rope_scaling": {"type": "linear", "factor": 8.0},
        "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 100.0},
    },
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "head_dim": 20},
    "yarn_published_qwen3": {
        "rope_theta": 1e6,
        "rope_scaling": {"type": "yarn", "factor": 4.0,
                         "original_max_position_embeddings": 32768},
        "max_position_embeddings": 40960,
        "head_dim": 128,
    },
    "yarn_without_original": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0},
                              "max_position_embeddings": 512, "head_dim": 32},
    "yarn_original_outside": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0},
                              "original_max_position_embeddings": 128, "head_dim": 32},
    "yarn_factor_null": {
        "rope_parameters": {"rope_type": "yarn", "factor": None,
                            "original_max_position_embeddings": 64},
        "max_position_embeddings": 256, "head_dim": 16,
    },
    "yarn_attention_factor": {
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25,
                            "original_max_position_embeddings": 64}, "head_dim": 16,
    },
    "yarn_mscale": {
        "rope_parameters": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0,
                            "mscale_all_dim": 0.7,
                            "original_max_position_embeddings": 4096}, "head_dim": 64,
    },
    "yarn_one_mscale": {
        "rope_parameters": {"rope_type": "yarn", "factor": 40.0, "mscale": 0.7,
                            "original_max_position_embeddings": 4096}, "head_dim": 64,
    },
    "yarn_betas_without_truncate": {
        "rope_parameters": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 16.0,
                            "beta_slow": 2.0, "truncate": False,
                            "original_max_position_embeddings": 4096}, "head_dim": 64,
    },
    "yarn_beta_zero": {
        "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 0, "beta_slow": 0,
                            "original_max_position_embeddings": 1024}, "head_dim": 48,
    },
    "yarn_ramp_of_one_channel": {
        "rope_parameters": {"rope_type": "yarn", "factor": 2.0,
                            "original_max_position_embeddings": 1},
        "head_dim": 8,
    },
}


def main():
    golden = {}
    for name, keys in CASES.items():
        given = json.loads(json.dumps(keys))  # transformers fills in the dict it is given
        embedding = Qwen3MoeRotaryEmbedding(Qwen3MoeConfig(**SIZES, **given))
        golden[name] = {
            "config": {"model_type": "qwen3_moe", **SIZES, **keys},
            "attention_factor": embedding.attention_scaling,
            # float32 bits, so that nothing is rounded on the way
            "inv_freq_bits": [struct.unpack("<I", struct.pack("<f", v))[0]
                              for v in embedding.inv_freq.tolist()],
        }
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in golden.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
