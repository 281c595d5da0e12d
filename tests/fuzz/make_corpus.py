"""Writes the seeds of tests/fuzz/corpus: small inputs that reach far, from which libFuzzer makes others.

    python3 tests/fuzz/make_corpus.py

Needs protoc. Files named finding_* are inputs that once failed: they stay, and this script leaves them alone.
"""
import json
import pathlib
import struct
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPUS = HERE / "corpus"

# Of config.json, what says nothing to a server.
IDLE_KEYS = ("architectures", "attention_dropout", "initializer_range", "output_router_logits", "transformers_version",
             "use_cache", "router_aux_loss_coef")


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def configs():
    for path in sorted(ROOT.glob("tests/golden/*/config.json")):
        config = {key: value for key, value in json.loads(path.read_text()).items() if key not in IDLE_KEYS}
        write("model_config", path.parent.name, compact(config))
    write("model_config", "old_rope", compact({
        "model_type": "qwen3_moe", "rope_theta": 5e5, "torch_dtype": "bfloat16", "eos_token_id": [1, 2],
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32,
                         "beta_slow": 1, "mscale": 0.7, "mscale_all_dim": 0.7, "attention_factor": None}}))


def generation_configs():
    write("generation_config", "all", compact({
        "do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.9,
        "repetition_penalty": 1.05, "max_new_tokens": 64, "eos_token_id": [1, 2], "num_beams": 4, "stop_strings": ["a"]}))
    write("generation_config", "greedy", compact({"do_sample": False, "eos_token_id": 0, "pad_token_id": 0}))


def safetensors_file(header, data):
    text = compact(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors():
    def tensor(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    write("safetensors", "types", safetensors_file(
        {"__metadata__": {"format": "pt"}, "a": tensor("F32", [2, 2], 0, 16), "b": tensor("BF16", [3], 16, 22),
         "c": tensor("F8_E4M3", [1, 2], 22, 24)}, bytes(24)))
    write("safetensors", "scalar_and_empty", safetensors_file(
        {"s": tensor("F32", [], 0, 4), "e": tensor("F64", [0, 3], 4, 4), "i": tensor("I64", [1], 4, 12)}, bytes(12)))
    write("safetensors", "no_tensors", safetensors_file({}, b""))


def tokenizer(normalizer, pre_tokenizer, post_processor, **model):
    letters = ["a", "b", "c", "d", "1", "Ġ", "Ċ", "Ã", "©", "ab", "abc", "Ġa"]
    end = {"id": 12, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
           "special": True}
    word = {"id": 13, "content": "word", "single_word": True, "lstrip": True, "rstrip": True, "normalized": True,
            "special": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end, word],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer or byte_level, "post_processor": post_processor,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {letter: i for i, letter in enumerate(letters)},
                      "merges": [["a", "b"], ["ab", "c"], ["Ġ", "a"]], **model}}


def tokenizers():
    text = "abc ab<|end|> word\né1 1\n"
    split = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"},
         "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [12], "tokens": ["<|end|>"]}}}
    cases = {"byte_level": tokenizer(None, None, None), "split": tokenizer({"type": "NFC"}, split, None),
             "template": tokenizer(None, split, template, ignore_merges=True)}
    for name, case in cases.items():
        write("tokenizer", name, compact(case).encode() + b"\0" + text.encode())


def chat_templates():
    for path in sorted(ROOT.glob("tests/chat_template/templates/*.jinja")):
        if path.stat().st_size < 5000:  # longer ones are slow and no further
            write("chat_template", path.stem, path.read_bytes() + b"\0Hi there\n")
    write("chat_template", "odds_and_ends", """{% macro f(x, y=2) -%} {{ x ~ y }} {%- endmacro %}
{%- set ns = namespace(n=0) %}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + 1 %}
{{ loop.index }}{{ f(m['content'] | trim | upper | replace('A', 'b'), y=[1, 2.5, {'a': none}] | tojson) }}
{% if loop.last %}{% break %}{% else %}{{ m.content[1:-1:2].split(' ') | join(',') }}{% endif %}{% endfor %}
{{ ns.n // 2 ** 3 % 5 }}{{ range(3) | list | length }}{{ 'a' in 'abc' and not false }}
{%- if messages is defined and 1 is even %}{{ raise_exception('no') }}{% endif %}""")


def tenants():
    write("tenants", "yaml", """@tenants:
  - name: search
    weight: 3
    max-priority: high
    max-running-requests: 8
    max-queued-tokens: 100000
    default-mode: exact
    loosest-mode: isolated
    tokens: [0123456789abcdef, "sha256:%s"]
  - name: batch
    tokens:
      - fedcba9876543210
""" % ("0a" * 32))
    write("tenants", "anchors", "@tenants: [&a {name: a, tokens: [aaaaaaaaaaaaaaaaa]}, {<<: *a, name: b}]\n")
    write("tenants", "lines", "A# a comment\n0123456789abcdef\n\nsha256:%s\n" % ("0a" * 32))


def requests():
    def encode(message, text):
        command = ["protoc", "-I", ROOT / "proto", f"--encode=gatehouse.v1.{message}", "gatehouse/v1/inference.proto"]
        return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout

    write("request", "sampling", b"\0" + encode("GenerateRequest", """
        request_id: "id" text: "hello" add_special_tokens: true priority: HIGH
        sampling { temperature: 0.5 top_k: 3 top_p: 0.5 min_p: 0.25 typical_p: 0.75 frequency_penalty: -1
          presence_penalty: 1 repetition_penalty: 2 seed: 9 n: 1 logit_bias { key: 9 value: -5 }
          allowed_token_ids: 7 allowed_token_ids: 1 bad_words: "no" }"""))
    write("request", "stop_and_output", b"\0" + encode("GenerateRequest", """
        tokens { ids: 1 ids: 256 } stop { max_new_tokens: 11 min_new_tokens: 2 strings: "end" token_ids: 8
          ignore_eos: true include_stop: true }
        output { top_logprobs: 0 prompt_logprobs: 2 token_ids: true routed_experts: true moe_report: true }
        routing { mode: EXACT } cache_salt: "salt" """))
    write("request", "chat", b"\0" + encode("GenerateRequest", """
        chat { messages { role: "user" content: "hello" } add_generation_prompt: true
          template_variables { fields { key: "a" value { number_value: 1 } } } }"""))
    write("request", "tokenize", b"\1" + encode("TokenizeRequest", 'text: "a<|end|>b" parse_special: true'))
    write("request", "detokenize", b"\2" + encode("DetokenizeRequest", "ids: 97 ids: 256 skip_special_tokens: true"))


if __name__ == "__main__":
    chat_templates()
    configs()
    generation_configs()
    safetensors()
    tokenizers()
    tenants()
    requests()
