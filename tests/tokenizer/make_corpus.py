"""Makes tests/tokenizer/data: small tokenizers of the published kinds, strings of named Unicode
classes, and what Hugging Face `tokenizers` answers for them.

  python tests/tokenizer/make_corpus.py          (tokenizers==0.23.3, Python 3.11)

Files:
  qwen2/tokenizer.json   NFC, Qwen's split, special tokens, added tokens with every flag, merges as
                         "a b"
  llama3/tokenizer.json  GPT-4's split, ignore_merges, BOS by TemplateProcessing, merges as pairs
  sparse/tokenizer.json  GPT-2's ByteLevel with add_prefix_space; few bytes have a token, the others
                         are <unk>, fused
  mixtral olmoe granite deepseek_v2 deepseek_v3 gpt_oss /tokenizer.json
                         in the style of these families, steps as published (families.py)
  variants.json          changes to llama3 and to mixtral: steps of other families, splits, behaviours; each key
                         replaces that of the document, those of "model" are merged into it
  corpus.jsonl           first {"tokenizers": names}; then {"c": class, "s": text,
                          "k": for each tokenizer the CRC-32 of the ids with parse_special, -1, and without,
                          "w": CRC-32 of the lengths of the words (bytes, as int32) that the byte-level pre-tokenizers cut
                               the text into, variants of llama3 last,
                          "v": the same as "k" in 16 bits for the variants in the order of their names, every fifth line}
  decode.jsonl           {"t": tokenizer or variant, "i": ids, "skip": text, "keep": text}
  long.json              CRC-32 and number of the ids of texts of 128 KiB without a break
  categories.json        [first, last, general category] as the regular expressions see them
  neighbours.json        ranges of code points that keep a single_word token from matching before and
                         behind it, and that lstrip and rstrip take
  forms.json             CRC-32 of NFC, NFD, NFKC, NFKD and Lowercase for each 4,096 code points
"""

import json
import pathlib
import random
import struct
import zlib

from families import HERE, TRAIN, make_families, make_llama3, make_qwen2, make_sparse, make_variants
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

DEMO = pathlib.Path(__file__).parent / "../../models/demo/tokenizer.json"
SEED = 20240607
LINES_PER_CLASS = 138

def words(rng, alphabet):
    return " ".join("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 6)))
                    for _ in range(rng.randint(1, 6)))


def span(first, last):
    return [chr(c) for c in range(first, last + 1)]


def classes(rng):
    english = TRAIN[:700].replace("\n", " ").split(" ")
    spaces = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", " \n", "\t\t", "\r", "\x0b", "\x0c", "       "]
    marks = span(0x300, 0x345) + ["\u0323", "\u0327", "\u05b0", "\u064b", "\u093c", "\u0f71", "\u3099", "\u1ab0",
                                   "\u1df6", "\u08d3", "\u20d0", "\U0001d165", "\u1abf", "\U00011938", "\U00011930"]
    contraction = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D", "'\u017f",
                   "'x", "''s", "’s", "'LL", "'re's"]
    emoji = ["😀", "👍", "👍🏽", "👨‍👩‍👧‍👦", "❤️", "❤", "🇩🇪", "🇫🇷🇯🇵", "1️⃣", "🏴\U000e0067\U000e0062\U000e007f", "☺︎", "⌚", "🫠", "🪿", "\ufe0f", "\u200d"]
    odd_spaces = list("\u00a0\u1680\u2000\u2001\u2002\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u0085\u180e")
    zero_width = list("\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u061c\u115f\u17b4\u200e\u202a\u2066")
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<tool_call>", "<left>",
                "<right>", "<both>", "lone", "alone", "sol", "cafe\u0301", "café", "cafe\u0301raw", "caféraw", "<mask>", "<|im",
                "<nspecial>", "\t<|", "    ", "日本", "<s>", "<|im_start", "|>", "<", "<unk>"]

    def some(items, low, high, joint=""):
        return joint.join(rng.choice(items) for _ in range(rng.randint(low, high)))

    def mixed(*parts):
        return lambda: "".join(some(p, 0, 3) for p in rng.sample(parts, len(parts)) for _ in range(2))
    any_scalar = lambda: chr(rng.choice([c for c in (rng.randrange(0x110000) for _ in range(8))
                                         if not 0xD800 <= c <= 0xDFFF]))
    ascii_letters = [chr(c) for c in range(33, 127)]
    code = ["if (x)", " {\n", "}\n", "    return ", "foo_bar", "->", "::", "std::vector<int>", "==", "!=", "  // note", "\"s\\n\"",
            "0x1F", "1e-9", "self.", "def f(a, b=1):\n\t", "#include <x.h>\n", "lambda x: x**2", "`a`", "@", "$HOME", "<<", "&&", "...\n\n"]
    return {
        "ascii_prose": lambda: some(english, 2, 12, " "),
        "ascii_any": lambda: words(rng, ascii_letters),
        "code": lambda: some(code, 2, 7),
        "whitespace": lambda: "".join(some(spaces, 1, 3) + some(english + [""], 0, 1) for _ in range(rng.randint(1, 5))),
        "digits": lambda: some(list("0123456789") + ["1234567", " 42", "3.14", "٣", "५", "1,000", "-7", "²"], 1, 9),
        "contractions": lambda: "".join(some(["we", "IT", " they", " I", "'", " o", "é", "1"], 1, 2) + some(contraction, 1, 1)
                                         for _ in range(rng.randint(1, 4))) + some([" go", ""], 1, 1),
        "latin1": lambda: words(rng, span(0xA0, 0xFF) + list("abc")),
        "latin_extended": lambda: words(rng, span(0x100, 0x24F) + span(0x1E00, 0x1EFF)),
        "combining": lambda: "".join(rng.choice("aeiouycnsAEo अกא가\u1100") + some(marks, 0, 4) for _ in range(rng.randint(1, 8))),
        "nfc_relevant": lambda: some(["é", "e\u0301", "\u212b", "\u2126", "a\u0323\u0307", "a\u0307\u0323", "\u1e9b\u0323", "q\u0307\u0323",
                                      "\u0344", "\u0958", "\u2adc", "\u0374", "\u1fef", "\ufb1d", "\uf900", "\u304b\u3099", "\u1100\u1161\u11a8",
                                      "\U00011935\U00011930", "\U00011938", "\u0cca", "\u09c7\u09be", "\u0f73", "\U0001d15e", " "], 1, 8),
        "greek": lambda: words(rng, span(0x370, 0x3FF) + span(0x1F00, 0x1FFE)),
        "cyrillic": lambda: words(rng, span(0x400, 0x52F)),
        "hebrew_arabic": lambda: words(rng, span(0x5D0, 0x5EA) + span(0x620, 0x660) + span(0x5B0, 0x5BD) + span(0x6F0, 0x6F9)),
        "devanagari_thai": lambda: words(rng, span(0x900, 0x96F) + span(0xE01, 0xE3A) + span(0xE40, 0xE5B)),
        "cjk": lambda: some(span(0x4E00, 0x4FFF) + list("日本語中文、。「」ー　") + span(0x3041, 0x30FF) + span(0x20000, 0x20020), 1, 14),
        "hangul": lambda: words(rng, span(0xAC00, 0xAD00) + span(0x1100, 0x1112) + span(0x1161, 0x1175) + span(0x11A8, 0x11C2) + span(0x3131, 0x3163)),
        "emoji": lambda: some(emoji + ["a", " "], 1, 8),
        "astral": lambda: some(span(0xD7F0, 0xD7FF) + span(0xE000, 0xE004) + span(0xFFF0, 0xFFFF) + span(0x10000, 0x10010) +
                               span(0x1D400, 0x1D420) + ["\U0010ffff", "\U0010fffe", "\U0001ffff", "a", " "], 1, 9),
        "private_use": lambda: some(span(0xE000, 0xE010) + span(0xF8F0, 0xF8FF) + ["\U000f0000", "\U00100000", "x", " "], 1, 9),
        "control": lambda: some(span(0, 0x1F) + span(0x7F, 0x9F) + ["a", " ", "1"], 1, 10),
        "odd_spaces": lambda: "".join(some(odd_spaces + [" ", "\n"], 1, 3) + some(["word", "é", "1", "!", ""], 1, 1) for _ in range(rng.randint(1, 5))),
        "zero_width": lambda: "".join(some(zero_width, 1, 2) + some(["ab", " c", "1", "é", "."], 0, 2) for _ in range(rng.randint(1, 5))),
        "bom": lambda: "\ufeff" + some(["hello", " world", "\ufeff", "\n", "é", "<|im_end|>"], 0, 4),
        "titlecase_numbers": lambda: some(list("ǅǈǋǲᾈᾘᾨ") + list("²³¹¼½¾ⅠⅣⅷↀ①⑳⓪㊿㉑〇〡௰൰१๑𝟘𝟙") + [" ", "a"], 1, 9),
        "newer_unicode": lambda: some(["\u0897", "\u1c89", "\ua7cb", "\U00010d40", "\U00010d50", "\U00010d4e", "\U000105c0", "\U00011f00", "\U00011f50",
                                       "\U0001e4d0", "\U0001e4f0", "\U0001d2c0", "\U00031350", "\U0002ebf0", "\U0001fae8", "\u2ffc", "\U00016d70",
                                       "\U000116d0", "\u1b4e", "\U0001cc00", "a", " ", "1"], 1, 8),
        "special_text": lambda: "".join(some(specials, 1, 1) + some(["", " ", "  ", "x", " hi ", "\n", "é", "_", "-", "\u3000", "e\u0301"], 1, 1)
                                        for _ in range(rng.randint(1, 5))),
        "random_scalars": lambda: "".join(any_scalar() for _ in range(rng.randint(1, 8))),
        "byteish": lambda: bytes(rng.randrange(256) for _ in range(rng.randint(1, 24))).decode("utf-8", "replace"),
        "mixed": mixed(english, spaces, emoji, contraction, odd_spaces, specials, ["日本語", "Привет", "שלום", "สวัสดี", "123"]),
    }


def family_classes(rng):
    """One class for the regular expressions (or the marks) of each family: what its alternatives begin and end with."""
    def some(items, low, high):
        return "".join(rng.choice(items) for _ in range(rng.randint(low, high)))
    common = ["a", "Bc", "é", "Ж", "日", "1", "12", "1234", " ", "  ", "\n", "\r\n", "\t", "!", "...", "'s", "'LL", "_", "-"]
    pools = {
        "split_qwen": ["'", "'re", "\r", " \n ", "٣٤", "½", " ?!", "\u00a0x", "\u3000"],
        "split_gpt4": ["123456789", "\u0301", " '", "'T", "\n\n  ", "\t\tx", "x'd've", "〇"],
        "split_o200k": ["HTTPServer", "camelCase", "ǅ", "ʰ", "ª", "e\u0301", "/", "//\n", "?/\r\n", "IT'S", "McD", "ٱلْ", "Ωμέγα"],
        "split_deepseek_v3": ["一龥", "ひら", "カナ", "ー", "@user", "#tag", "`x`", "$", "€", "\u0301", "।", "«", "ab\u0300c", "\u0905\u093e"],
        "split_deepseek_v2": ["一", "가", "힣", "ꓐ", "\u2018q\u2019", "！", "。", "ｘ", "µ", "ƻ", "ʔ", "ͼ", "Ԁ", "Ա", "  ", " \n", "\u3000"],
        "split_granite": ["007", "x1y2", "٣", "²", "Ⅳ", " 9 ", "\U00011de1", "\U00016ff4", "we've", "def f():\n    "],
        "split_neox": ["                        ", "   ", "|||EMAIL_ADDRESS|||", "<|padding|>", "e\u0301", "\u212b", "don't", " 42"],
        "marks_mixtral": ["▁", " ▁", "▁▁ ", "<0x0A>", "<s>", "</s>", "[INST]", "<both>", " lone ", "\x00", "𝄞", "\ufffd", "ﬁ", "İ", "Σ"],
    }
    return {name: (lambda pool=pool: some(pool + common, 1, 9)) for name, pool in pools.items()}


def crc(ids):
    return zlib.crc32(struct.pack("<%di" % len(ids), *ids))


def encode(tokenizer, text, parse_special=True):
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text).ids


def both_ways(tokenizer, text):
    return crc(encode(tokenizer, text) + [-1] + encode(tokenizer, text, parse_special=False))


def word_lengths(tokenizer, text):
    return [len(word) for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]  # a letter a byte


def write_corpus(tokenizers, variants):
    rng = random.Random(SEED)
    num_lines = 0
    byte_level = [each for name, each in tokenizers.items() if name != "mixtral"] + list(variants["llama3"].values())
    all_variants = [each for base in variants.values() for each in base.values()]
    with open(HERE / "corpus.jsonl", "w", encoding="utf-8") as out:
        out.write(json.dumps({"tokenizers": list(tokenizers)}) + "\n")
        for name, make in {**classes(rng), **family_classes(rng)}.items():
            texts = [""] if name == "ascii_any" else []
            while len(texts) < LINES_PER_CLASS:
                text = make()
                if text and text not in texts:
                    texts.append(text)
            for text in texts:
                line = {"c": name, "s": text, "k": [both_ways(each, text) for each in tokenizers.values()],
                        "w": crc(sum((word_lengths(each, text) for each in byte_level), []))}
                if num_lines % 5 == 0:
                    line["v"] = [both_ways(each, text) & 0xFFFF for each in all_variants]
                out.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
                num_lines += 1
    return num_lines


def write_decode(tokenizers, variants):
    rng = random.Random(SEED + 1)
    pools = {**tokenizers, **variants["mixtral"]}
    with open(HERE / "decode.jsonl", "w", encoding="utf-8") as out:
        for name, tokenizer in pools.items():
            size = tokenizer.get_vocab_size()
            single_bytes = [i for i in range(size) if len(tokenizer.id_to_token(i)) == 1 or
                            tokenizer.id_to_token(i).startswith("<0x")]
            whole = [tokenizer.token_to_id(text) for text in ("▁", "▁▁", "<s>", "<0xE2>", "<0x96>", "<0x81>")
                     if tokenizer.token_to_id(text) is not None]
            for _ in range(80):
                pool = rng.choice([single_bytes, range(size), whole or range(size)])
                ids = [rng.choice(pool) if rng.random() < 0.9 else rng.randrange(size) for _ in range(rng.randint(1, 12))]
                if rng.random() < 0.3:
                    ids = encode(tokenizer, rng.choice(["日本 😀 é", "  two", "𝄞\u2581x", "a\x00b", "İ☃"]) * rng.randint(1, 2))
                out.write(json.dumps({"t": name, "i": ids, "skip": tokenizer.decode(ids),
                                      "keep": tokenizer.decode(ids, skip_special_tokens=False)},
                                     ensure_ascii=True, separators=(",", ":")) + "\n")


def write_long(tokenizers):
    size = 1 << 17
    state, letters = 1, []
    for _ in range(size):  # the same generator stands in the test
        state = (state * 1103515245 + 12345) % (1 << 31)
        letters.append(chr(ord("a") + (state >> 16) % 26))

    def repeated(text):
        return text * (size // len(text.encode()))
    texts = {"one_letter": repeated("a"), "random_letters": "".join(letters), "spaces": repeated(" "),
             "newlines": repeated("\n"), "digits": repeated("7"), "ideographs": repeated("日"),
             "emoji": repeated("😀"), "letter_and_space": repeated("a "), "letter_and_digit": repeated("a1"),
             "marks": "e" + repeated("\u0301"), "spaces_and_digit": " " * (size - 1) + "7",
             "capitals": repeated("aB"), "unknown_letters": repeated("ꙮ")}
    slow = {("spaces_and_digit", "deepseek_v2")}  # quadratic there: hours
    result = {name: {key: [len(ids), crc(ids)] for key, tokenizer in tokenizers.items() if (name, key) not in slow
                     for ids in [encode(tokenizer, text)]} for name, text in texts.items()}
    (HERE / "long.json").write_text(json.dumps(result, indent=1) + "\n")


def write_categories():
    code_points = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    category = {}
    for name in ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp").split():
        split = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed")
        for i in range(0, len(code_points), 4096):
            chunk = code_points[i:i + 4096]
            left = {ord(c) for text, _ in split.pre_tokenize_str("".join(map(chr, chunk))) for c in text}
            category.update((c, name) for c in chunk if c not in left)
    rows = []
    for c in sorted(category):
        if rows and rows[-1][1] == c - 1 and rows[-1][2] == category[c]:
            rows[-1][1] = c
        else:
            rows.append([c, c, category[c]])
    (HERE / "categories.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")


def ranges(code_points):
    rows = []
    for c in code_points:
        if rows and rows[-1][1] == c - 1:
            rows[-1][1] = c
        else:
            rows.append([c, c])
    return rows


def write_neighbours():
    tokenizer = Tokenizer(models.BPE({"x": 0}, []))
    tokenizer.add_tokens([AddedToken("lone", single_word=True), AddedToken("<strip>", lstrip=True, rstrip=True)])
    lone = tokenizer.token_to_id("lone")
    code_points = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    result = {
        "word_before": ranges(c for c in code_points if lone not in tokenizer.encode(chr(c) + "lone").ids),
        "word_after": ranges(c for c in code_points if lone not in tokenizer.encode("lone" + chr(c)).ids),
        "space_before": ranges(c for c in code_points if tokenizer.encode("x" + chr(c) + "<strip>").offsets[-1][0] == 1),
        "space_after": ranges(c for c in code_points if tokenizer.encode("<strip>" + chr(c) + "x").offsets[0][1] == 8)}
    (HERE / "neighbours.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


def write_forms():
    result = {}
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        form = getattr(normalizers, name)()
        result[name] = []
        for begin in range(0, 0x110000, 4096):
            text = "".join(form.normalize_str(each) + "\n" for c in range(begin, begin + 4096) if not 0xD800 <= c <= 0xDFFF
                           for each in (chr(c), "a\u0345" + chr(c) + "\u0300\u0323", "\U00011935" + chr(c) + "\u0301"))
            result[name].append(zlib.crc32(text.encode()))
    (HERE / "forms.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


def main():
    tokenizers = {"demo": Tokenizer.from_file(str(DEMO)), "qwen2": make_qwen2(), "llama3": make_llama3(),
                  "sparse": make_sparse(), **make_families()}
    variants = make_variants(tokenizers)
    print("corpus lines:", write_corpus(tokenizers, variants))
    write_decode(tokenizers, variants)
    write_long(tokenizers)
    write_categories()
    write_neighbours()
    write_forms()


main()
