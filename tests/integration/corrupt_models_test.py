"""A spoilt model folder of any family ends the server with exit code 3 and one line that names the file and what is wrong."""
import concurrent.futures
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

from harness import HANG_SECONDS, program

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
FAMILIES = ["deepseek_v2_lite_f16", "deepseek_v3_f32", "gpt_oss_bf16", "granite_f32", "locmoe_dot_f32", "mixtral_f32",
            "olmoe_f32", "plain_f32", "qwen2_moe_f32"]
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
WIDTH = {"F32": 4, "F16": 2, "BF16": 2}
NAN = {"F32": b"\x00\x00\xc0\x7f", "F16": b"\x00\x7e", "BF16": b"\xc0\x7f"}


def read_weights(path):
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return header, data[8 + size:]


def write_weights(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def weights(change):
    """`change(header, data)` may return new data."""
    def apply(folder):
        header, data = read_weights(folder / WEIGHTS)
        write_weights(folder / WEIGHTS, header, change(header, data) or data)
    return apply


def document(name, change):
    def apply(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return apply


def first(header, part=""):
    return next(name for name in header if part in name)


def grow_shape(header, _):
    header[first(header)]["shape"][0] += 1


def repeat_range(header, _):
    names = list(header)
    header[names[0]] = dict(header[names[1]])


def nan_in_weight(header, data):
    tensor = header[first(header)]
    at, width = tensor["data_offsets"][0], WIDTH[tensor["dtype"]]
    return data[:at + 3 * width] + NAN[tensor["dtype"]] + data[at + 4 * width:]


def rename_norm(header, _):
    name = first(header, "norm")
    header[name + ".old"] = header.pop(name)


def shards(change):
    """Two shards and their index, spoilt by `change(parts, index)`; a part is [file name, header, data]."""
    def apply(folder):
        header, data = read_weights(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names, parts, index = sorted(header), [], {}
        for i, chosen in enumerate((names[:len(names) // 2], names[len(names) // 2:])):
            part = [f"model-0000{i + 1}-of-00002.safetensors", {}, b""]
            for name in chosen:
                begin, end = header[name]["data_offsets"]
                add_tensor(part, name, header[name], data[begin:end])
                index[name] = part[0]
            parts.append(part)
        change(parts, index)
        for name, part_header, part_data in parts:
            write_weights(folder / name, part_header, part_data)
        (folder / (WEIGHTS + ".index.json")).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return apply


def add_tensor(part, name, tensor, values):
    part[1][name] = dict(tensor, data_offsets=[len(part[2]), len(part[2]) + len(values)])
    part[2] += values


def cut_second(parts, _):
    parts[1][2] = parts[1][2][:-7]


def twice(parts, _):
    name, tensor = next(iter(parts[0][1].items()))
    add_tensor(parts[1], name, tensor, parts[0][2][slice(*tensor["data_offsets"])])


def climb(_, index):
    index[next(iter(index))] = "../" + WEIGHTS


def duplicate_id(content):
    vocab = content["model"]["vocab"]
    names = list(vocab)
    vocab[names[1]] = vocab[names[0]]


def content(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def not_a_file(name, make):
    def apply(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
    return apply


def header_length(length):
    def apply(folder):
        path = folder / WEIGHTS
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    return apply


def entry(key, value):
    def change(header, _):
        header[first(header)][key] = value
    return weights(change)


def foreign_merge(content):
    content["model"]["merges"][0] = ["no such", "tokens"]


def unknown_regex(content):
    steps = content["pre_tokenizer"].get("pretokenizers", [content["pre_tokenizer"]])
    steps.insert(0, {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False})
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}


def token_beyond(content):
    content["model"]["vocab"]["one more"] = 100_000


# What is done, and words of the answer: the file that is named, then what is wrong.
SHARD = "model-00002-of-00002.safetensors"
CASES = {
    "a size too large": (document(CONFIG, lambda c: c.update(hidden_size=2**40)),
                         [CONFIG, "hidden_size: got 1099511627776", "131072"]),
    "a text for a number": (document(CONFIG, lambda c: c.update(num_hidden_layers="2")), [CONFIG, 'got "2"', "integer"]),
    "more experts chosen than there are": (document(CONFIG, lambda c: c.update(num_experts_per_tok=99)),
                                           [CONFIG, "num_experts_per_tok: got 99"]),
    "no JSON": (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe{"), [CONFIG, "bad JSON at byte 1"]),
    "a file cut short": (weights(lambda header, data: data[:len(data) // 2]), [WEIGHTS, "data_offsets", "bytes of data"]),
    "a shape off by one": (weights(grow_shape), [WEIGHTS, "expected"]),
    "two tensors at one place": (weights(repeat_range), [WEIGHTS, "data_offsets"]),
    "a value that is not finite": (weights(nan_in_weight), [WEIGHTS, "got a NaN at value 3"]),
    "a tensor by another name": (weights(rename_norm), [WEIGHTS, "norm", "missing"]),
    "a shard cut short": (shards(cut_second), [SHARD, "data_offsets"]),
    "a tensor in two shards": (shards(twice), [SHARD, "unexpected here"]),
    "a shard that is lost": (shards(lambda parts, index: parts.pop()), [SHARD, "no such file"]),
    "a shard outside of the folder": (shards(climb), [WEIGHTS + ".index.json", f'got "../{WEIGHTS}"']),
    "two tokens with one id": (document(TOKENIZER, duplicate_id), [TOKENIZER, "model.vocab"]),
    "no tokenizer": (lambda folder: (folder / TOKENIZER).unlink(), [TOKENIZER, "no such file"]),
    "a template that does not parse": (lambda folder: (folder / "chat_template.jinja").write_text("{% if x %}"),
                                       ["chat_template.jinja", "line 1"]),
}

# Faults that no family reads in its own way: each of them with one family, in turn.
GENERATION, INDEX, TEMPLATE = "generation_config.json", WEIGHTS + ".index.json", "chat_template.jinja"
CASES_OF_ONE = {
    "an empty folder": (lambda folder: [path.unlink() for path in folder.iterdir()], [CONFIG, "no such file"]),
    "a folder for a configuration": (not_a_file(CONFIG, pathlib.Path.mkdir), [CONFIG, "not a regular file"]),
    "a pipe for weights": (not_a_file(WEIGHTS, os.mkfifo), [WEIGHTS, "not a regular file"]),
    "a pipe for a tokenizer": (not_a_file(TOKENIZER, os.mkfifo), [TOKENIZER, "not a regular file"]),
    "a pipe for a template": (not_a_file(TEMPLATE, os.mkfifo), [TEMPLATE, "not a regular file"]),
    "a list for a configuration": (content(CONFIG, b"[]"), [CONFIG, "got a JSON array"]),
    "a key twice": (content(CONFIG, b'{"vocab_size": 1, "vocab_size": 2}'), [CONFIG, "vocab_size", "twice"]),
    "a family that nobody knows": (document(CONFIG, lambda c: c.update(model_type="llama")), [CONFIG, 'got "llama"']),
    "a number that is none": (content(CONFIG, b'{"rms_norm_eps": NaN}'), [CONFIG, "bad JSON at byte 18"]),
    "deep nesting": (content(TOKENIZER, b"[" * 200_000), [TOKENIZER, "nests deeper"]),
    "no byte": (content(WEIGHTS, b""), [WEIGHTS, "empty"]),
    "less than a length": (content(WEIGHTS, b"1234"), [WEIGHTS, "got 4 bytes"]),
    "a header of 2^64 - 1 bytes": (header_length(2**64 - 1), [WEIGHTS, "got 18446744073709551615 bytes"]),
    "a header of 2^40 bytes": (header_length(2**40), [WEIGHTS, "got 1099511627776 bytes"]),
    "an unknown type": (entry("dtype", "F7"), [WEIGHTS, 'got "F7"']),
    "a shape beyond 2^64": (entry("shape", [2**62, 4]), [WEIGHTS, "shape: got [4611686018427387904, 4]"]),
    "a negative size": (entry("shape", [-1, 4]), [WEIGHTS, "shape"]),
    "an offset below 0": (entry("data_offsets", [-4, 0]), [WEIGHTS, "data_offsets: got [-4,0]"]),
    "an index without map": (lambda folder: (folder / WEIGHTS).rename(folder / SHARD) and
                             (folder / INDEX).write_text("{}"), [INDEX, "no weight_map"]),
    "a tensor that the index leaves out": (shards(lambda parts, index: index.pop(min(index))),
                                           ["model-00001-of-00002.safetensors", "unexpected here"]),
    "a tensor that only the index has": (shards(lambda parts, index: index.update(ghost=parts[0][0])),
                                         ["model-00001-of-00002.safetensors", "ghost: missing"]),
    "a merge of no tokens": (document(TOKENIZER, foreign_merge), [TOKENIZER, "model.merges[0]"]),
    "a regex that does not parse": (document(TOKENIZER, unknown_regex), [TOKENIZER, "pre_tokenizer", "Regex"]),
    "a token beyond the model's": (document(TOKENIZER, token_beyond), ["100000"]),
    "another kind of tokenizer": (document(TOKENIZER, lambda c: c["model"].update(type="WordPiece")),
                                  [TOKENIZER, 'got "WordPiece"']),
    "a filter above 1": (document(GENERATION, lambda c: c.update(top_p=7)), [GENERATION, "top_p: got 7"]),
    "an end token that is a text": (document(GENERATION, lambda c: c.update(eos_token_id="x")),
                                    [GENERATION, 'eos_token_id: got "x"']),
    "a template that is no UTF-8": (content(TEMPLATE, b"\xff"), [TEMPLATE, "UTF-8"]),
}


def check(folder):
    return subprocess.run([program("gatehouse-server"), "--model", str(folder), "--check"], capture_output=True, text=True,
                          timeout=HANG_SECONDS, check=False)


def spoil_and_check(family, spoil):
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / "model"
        shutil.copytree(GOLDEN / family, folder)
        spoil(folder)
        return check(folder)


class CorruptModelsTest(unittest.TestCase):
    def test_intact_folders_are_accepted_whole_and_in_shards(self):
        for family in FAMILIES:
            self.assertEqual(check(GOLDEN / family).returncode, 0, family)
            done = spoil_and_check(family, shards(lambda parts, index: None))
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_spoilt_ones_are_refused_in_one_line(self):
        cases = {(family, what): case for family in FAMILIES for what, case in CASES.items()}
        for i, (what, case) in enumerate(CASES_OF_ONE.items()):
            cases[FAMILIES[i % len(FAMILIES)], what] = case
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = {key: pool.submit(spoil_and_check, key[0], spoil) for key, (spoil, _) in cases.items()}
        for (family, what), run in runs.items():
            with self.subTest(family=family, what=what):
                done = run.result()
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                for words in cases[family, what][1]:
                    self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
