#!/usr/bin/env python3
"""Load a checkpoint in transformers, compare logits with model.py, write samples and golden vectors.

usage: verify.py MODEL_DIR DATA OUT_DIR      A GrAP checkpoint is first rewritten as an exactly equivalent Qwen3-MoE one:
with |x| = sqrt(d) after the unit-weight norm, scale * cos(x, w_i) = scale / (sqrt(d) |w_i|) * w_i . x.
"""

import json, math, sys, time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from model import hf_config, load

src, data, out = map(Path, sys.argv[1:4])
torch.set_num_threads(1)
out.mkdir(parents=True, exist_ok=True)
mine = load(src)
c = mine.c
hf_dir = src
if c.gate == "grap":
    hf_dir = out / "as_qwen3_moe"
    hf_dir.mkdir(exist_ok=True)
    s = load_file(src / "model.safetensors")
    w = torch.zeros(c.n, c.d)
    for i in range(c.n):
        w[i, i * c.d // c.n : (i + 1) * c.d // c.n] = c.n / c.d
    w *= c.scale / (math.sqrt(c.d) * math.sqrt(c.n / c.d))
    assert torch.equal(w.bfloat16().float(), w)
    s |= {f"model.layers.{l}.mlp.gate.weight": w.bfloat16() for l in range(c.layers)}
    save_file(s, hf_dir / "model.safetensors", metadata={"format": "pt"})
    cfg = hf_config(c)
    for k in (
        "gate",
        "affinity",
        "router_scale",
        "combine",
        "capacity_factor",
        "affinity_mass",
        "capacity_floor",
        "drop_order",
    ):
        cfg.pop(k)
    json.dump(
        cfg | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"},
        open(hf_dir / "config.json", "w"),
        indent=2,
    )
    for f in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (hf_dir / f).write_bytes((src / f).read_bytes())

tok = AutoTokenizer.from_pretrained(hf_dir)
hf, info = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32, output_loading_info=True)
hf.eval()
print(type(hf).__name__, {k: (sorted(v)[:4] if v else 0) for k, v in info.items()})
val = torch.from_numpy(np.fromfile(data / "val.bin", dtype=np.uint16).astype(np.int64))
ids = torch.stack([val[o : o + 256] for o in (0, 60000, 150000)])
with torch.no_grad():
    zh, zm = hf(ids).logits, mine(ids)
    print(
        "fp32 logits: max |diff| %.3g, max |logit| %.3g, argmax equal %.5f"
        % ((zh - zm).abs().max(), zm.abs().max(), (zh.argmax(-1) == zm.argmax(-1)).float().mean())
    )
    assert tok(tok.decode(val[:512].tolist())).input_ids == val[:512].tolist()
    gold = []
    for prompt in ("It is a truth universally acknowledged, that", "ROMEO.\n", "And it came to pass"):
        x = tok(prompt, return_tensors="pt").input_ids
        y = hf.generate(x, max_new_tokens=32, do_sample=False, pad_token_id=0)
        z = hf(x).logits[0, -1]
        top = z.topk(8)
        gold.append(
            {
                "prompt": prompt,
                "ids": x[0].tolist(),
                "greedy": y[0, x.shape[1] :].tolist(),
                "text": tok.decode(y[0]),
                "last_top8": [[int(i), round(float(v), 5)] for v, i in zip(top.values, top.indices)],
                "sum_log_prob": round(float(hf(y).logits[0, :-1].log_softmax(-1).gather(1, y[0, 1:, None]).sum()), 5),
            }
        )
    json.dump(
        {"dtype": "float32 from bf16 weights", "transformers": __import__("transformers").__version__, "cases": gold},
        open(out / "golden.json", "w"),
        indent=1,
    )
    samples = []
    for n, prompt in enumerate(("The morning after the ball, Elizabeth", "HAMLET.\n", "And the Lord said unto Moses,")):
        torch.manual_seed(n)
        x = tok(prompt, return_tensors="pt").input_ids
        y = hf.generate(x, max_new_tokens=140, do_sample=True, temperature=0.8, top_k=0, top_p=1.0, pad_token_id=0)
        samples.append(tok.decode(y[0]))
    (out / "samples.txt").write_text("\n\n=====\n".join(samples) + "\n")
    print("\n\n=====\n".join(samples))
    hb = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.bfloat16).eval()
    zb = hb(ids).logits.float()
    lp, lb = zh.log_softmax(-1), zb.log_softmax(-1)
    print(
        "bf16 vs fp32 in transformers: max |diff| %.3g, mean KL %.3g, argmax equal %.5f"
        % (
            (zb - zh).abs().max(),
            (lp.exp() * (lp - lb)).sum(-1).mean(),
            (zb.argmax(-1) == zh.argmax(-1)).float().mean(),
        )
    )
