"""Makes tests/tokenizer/data: small tokenizers of the published kinds, strings of named Unicode
classes, and what Hugging Face `tokenizers` answers for them.

  python tests/tokenizer/make_corpus.py          (tokenizers==0.23.3, Python 3.11)

Files:
  qwen2/tokenizer.json   NFC, Qwen's split, special tokens, added tokens with every flag, merges as
                         "a b"
  llama3/tokenizer.json  GPT-4's split, ignore_merges, BOS by TemplateProcessing, merges as pairs
  sparse/tokenizer.json  GPT-2's ByteLevel with add_prefix_space; few bytes have a token, the others
                         are <unk>, fused
  variants.json          changes to llama3, splits and behaviours of other families: each key replaces
                         that of the document, those of "model" are merged into it
  corpus.jsonl           {"c": class, "s": text, tokenizer: ids with parse_special, ...,
                          "plain": {tokenizer: ids without parse_special, where they differ},
                          "v": CRC-32 of the ids of the variants in the order of their names, every fifth line,
                          "w": CRC-32 of the lengths of the words (bytes, as int32) that each pre-tokenizer
                          cuts the text into; the last one is of all variants together}
  decode.jsonl           {"t": tokenizer, "i": ids, "skip": text, "keep": text}
  long.json              CRC-32 and number of the ids of texts of 1 MiB without a break
  categories.json        [first, last, general category] as the regular expressions see them
  neighbours.json        ranges of code points that keep a single_word token from matching before and
                         behind it, and that lstrip and rstrip take
  nfc.json               CRC-32 of NFC for each 4,096 code points
"""

import copy
import json
import pathlib
import random
import struct
import zlib

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = pathlib.Path(__file__).parent / "data"
DEMO = pathlib.Path(__file__).parent / "../../models/demo/tokenizer.json"
SEED = 20240607

QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT4_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
              r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K_SPLIT = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK_V3_SPLITS = [
    r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
DEEPSEEK_V2_SPLITS = ["[\r\n]", "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+",
                      "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+"]

TRAIN = """
All human beings are born free and equal in dignity and rights. They are endowed with reason and
conscience and should act towards one another in a spirit of brotherhood. It's what they'd said, we'll
see; I'm sure you've heard that we're not done yet. def main(argc, argv):\n    return 0  # 12345\n
for (int i = 0; i < n; ++i) { sum += values[i]; }  // the total of all values, in cents: $3.50, 100%
Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et
de conscience et doivent agir les uns envers les autres dans un esprit de fraternité. L'été, ça va.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen
begabt und sollen einander im Geist der Brüderlichkeit begegnen. Größe, Straße, Übermut.
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι
προικισμένοι με λογική και συνείδηση. Все люди рождаются свободными и равными в своем достоинстве и
правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.
כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ
人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。すべての人間は、生まれながらにして自由であり、
かつ、尊厳と権利とについて平等である。모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 😀😃🎉👍🏽 👨‍👩‍👧‍👦 🇩🇪🇫🇷
"""


def train(split, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(TRAIN.strip().split("\n") * 2, trainer)
    return tokenizer


def special(text, **flags):
    return AddedToken(text, special=True, normalized=False, **flags)


def save(tokenizer, name, edit=None):
    document = json.loads(tokenizer.to_str())
    if edit:
        edit(document)
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    return Tokenizer.from_str(text)


def make_qwen2():
    tokenizer = train(QWEN_SPLIT, 256 + 700)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")])
    tokenizer.add_tokens([
        AddedToken("<tool_call>", normalized=False), AddedToken("<left>", lstrip=True, normalized=False),
        AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
        AddedToken("lone", single_word=True, normalized=True),
        AddedToken("sol", single_word=True, lstrip=True, normalized=False),
        AddedToken("cafe\u0301", normalized=True),       # found as the composed café
        AddedToken("cafe\u0301raw", normalized=False),   # found only as it stands
        AddedToken("    ", normalized=True), AddedToken("\t<|", normalized=False),
        AddedToken("日本", normalized=True)])
    tokenizer.add_special_tokens([special("<mask>", lstrip=True), special("<|im"),
                                  AddedToken("<nspecial>", special=True, normalized=True)])

    def merges_as_text(document):
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return save(tokenizer, "qwen2", merges_as_text)


def make_llama3():
    tokenizer = train(GPT4_SPLIT, 256 + 500)
    tokenizer.normalizer = None
    tokenizer.add_special_tokens([special("<|begin_of_text|>"), special("<|end_of_text|>"), special("<|eot_id|>")])
    bos, eos = tokenizer.token_to_id("<|begin_of_text|>"), tokenizer.token_to_id("<|end_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A <|end_of_text|>",
                                      pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos), ("<|end_of_text|>", eos)])])

    def words_that_merges_do_not_reach(document):
        # Such words are why ignore_merges exists; they need ids below the added tokens'.
        model = document["model"]
        shift = 0
        for word in ["Ġbrotherhood", "straw", "Ġè¯", "æĹ¥æľ¬", "Ġdignity"]:
            if word not in model["vocab"]:
                model["vocab"][word] = bos + shift
                shift += 1
        for token in document["added_tokens"]:
            token["id"] += shift
        for step in document["post_processor"]["processors"]:
            for token in step.get("special_tokens", {}).values():
                token["ids"] = [i + shift for i in token["ids"]]
        model["ignore_merges"] = True
    return save(tokenizer, "llama3", words_that_merges_do_not_reach)


def make_sparse():
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["Ġ", "Ã", "©", ",", "Ċ"]
    vocab = {text: i for i, text in enumerate(["<unk>"] + letters + ["th", "the", "Ġthe", "Ã©", "in", "er"])}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ã", "©"), ("i", "n"), ("e", "r")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([special("<s>")])
    return save(tokenizer, "sparse")


def make_variants(base):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

    def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
        return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}

    def steps(*splits):
        return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(splits) + [byte_level]},
                "model": {"ignore_merges": False}}
    patches = {
        "o200k": steps(split(O200K_SPLIT)),
        "deepseek_v3": steps(*[split(p) for p in DEEPSEEK_V3_SPLITS]),
        "deepseek_v2": steps(*[split(p) for p in DEEPSEEK_V2_SPLITS]),
        "prefix_space": {"pre_tokenizer": dict(byte_level, add_prefix_space=True)},
        "word": steps(split(r"\w+|[^\w\s]+", "Removed", True)),
        "lines": steps(split("^.|.$|^$", "Isolated"), split(r"\x{e9}|\u00df|\h{2}", "MergedWithNext")),
        "empty_matches": steps(split("x*", "Isolated"), split("(?=a)|(?<=e)", "Contiguous")),
        "text": steps(split("'", "MergedWithPrevious", False, "String"), split("  ", "Isolated", False, "String")),
        "scripts": steps(split(r"\p{Han}+|\p{Hiragana}+|\p{Katakana}+|\p{Cyrillic}+|\p{Latin}++|\P{L}{,2}")),
    }
    for behavior in ["Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            patches[f"{behavior}{'_invert' if invert else ''}"] = steps(split(r"\p{L}+|\d", behavior, invert))
    document = json.loads(base.to_str())
    result = {}
    for name, patch in patches.items():
        patched = copy.deepcopy(document)
        for key, value in patch.items():
            if key == "model":
                patched[key].update(value)
            else:
                patched[key] = value
        result[name] = Tokenizer.from_str(json.dumps(patched))
    (HERE / "variants.json").write_text(json.dumps(patches, ensure_ascii=True, indent=1) + "\n")
    return result


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


def crc(ids):
    return zlib.crc32(struct.pack("<%di" % len(ids), *ids))


def encode(tokenizer, text, parse_special=True):
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text).ids


def word_lengths(tokenizer, text):
    return [len(word) for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]  # a letter a byte


def write_corpus(tokenizers, variants):
    rng = random.Random(SEED)
    num_lines = 0
    with open(HERE / "corpus.jsonl", "w", encoding="utf-8") as out:
        for name, make in classes(rng).items():
            texts = [""] if name == "ascii_any" else []
            while len(texts) < 90:
                text = make()
                if text and text not in texts:
                    texts.append(text)
            for text in texts:
                line = {"c": name, "s": text}
                plain = {}
                for key, tokenizer in tokenizers.items():
                    line[key] = encode(tokenizer, text)
                    ids = encode(tokenizer, text, parse_special=False)
                    if ids != line[key]:
                        plain[key] = ids
                if plain:
                    line["plain"] = plain
                line["w"] = [crc(word_lengths(tokenizer, text)) for tokenizer in tokenizers.values()]
                line["w"].append(crc(sum((word_lengths(variants[key], text) for key in sorted(variants)), [])))
                if num_lines % 5 == 0:
                    line["v"] = [crc(encode(variants[key], text)) for key in sorted(variants)]
                out.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
                num_lines += 1
    return num_lines


def write_decode(tokenizers):
    rng = random.Random(SEED + 1)
    with open(HERE / "decode.jsonl", "w", encoding="utf-8") as out:
        for name, tokenizer in tokenizers.items():
            size = tokenizer.get_vocab_size()
            single_bytes = [i for i in range(size) if len(tokenizer.id_to_token(i)) == 1]
            for _ in range(100):
                pool = single_bytes if rng.random() < 0.5 else range(size)
                ids = [rng.choice(pool) if rng.random() < 0.9 else rng.randrange(size) for _ in range(rng.randint(1, 12))]
                out.write(json.dumps({"t": name, "i": ids, "skip": tokenizer.decode(ids),
                                      "keep": tokenizer.decode(ids, skip_special_tokens=False)},
                                     ensure_ascii=True, separators=(",", ":")) + "\n")


def write_long(tokenizers):
    size = 1 << 20
    state, letters = 1, []
    for _ in range(size):  # the same generator stands in the test
        state = (state * 1103515245 + 12345) % (1 << 31)
        letters.append(chr(ord("a") + (state >> 16) % 26))
    texts = {"one_letter": "a" * size, "random_letters": "".join(letters), "spaces": " " * size,
             "newlines": "\n" * size, "digits": "7" * size, "ideographs": "日" * (size // 3)}
    result = {name: {key: [len(ids), crc(ids)] for key, tokenizer in tokenizers.items()
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


def write_nfc():
    nfc = normalizers.NFC()
    result = []
    for begin in range(0, 0x110000, 4096):
        text = "".join(nfc.normalize_str(each) + "\n" for c in range(begin, begin + 4096) if not 0xD800 <= c <= 0xDFFF
                       for each in (chr(c), "a\u0345" + chr(c) + "\u0300\u0323", "\U00011935" + chr(c) + "\u0301"))
        result.append(zlib.crc32(text.encode()))
    (HERE / "nfc.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


def main():
    tokenizers = {"demo": Tokenizer.from_file(str(DEMO)), "qwen2": make_qwen2(), "llama3": make_llama3(),
                  "sparse": make_sparse()}
    variants = make_variants(tokenizers["llama3"])
    print("corpus lines:", write_corpus(tokenizers, variants))
    write_decode(tokenizers)
    write_long(tokenizers)
    write_categories()
    write_neighbours()
    write_nfc()


main()
