"""Small tokenizers in the style of the published families, and variants of them, for make_corpus.py."""

import copy
import json
import pathlib

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = pathlib.Path(__file__).parent / "data"

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


def make_byte_level(name, normalizer, steps, vocab_size, special_tokens, *, template=None, ignore_merges=False):
    """A family whose pre-tokenizer is `steps` and then ByteLevel; special tokens stand behind the vocabulary."""
    tokenizer = train(GPT4_SPLIT, vocab_size)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.add_special_tokens([special(text) for text in special_tokens])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(text, tokenizer.token_to_id(text)) for text in special_tokens])

    def edit(document):
        document["model"]["ignore_merges"] = ignore_merges
        if normalizer is None:
            document["normalizer"] = {"type": "Sequence", "normalizers": []}
    return save(tokenizer, name, edit)


def make_olmoe():
    tokenizer = train(GPT4_SPLIT, 256 + 320)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.add_special_tokens([special("<|endoftext|>"), special("<|padding|>")])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    tokenizer.add_tokens([AddedToken("|||EMAIL_ADDRESS|||", normalized=False)])
    return save(tokenizer, "olmoe")


def split_steps(patterns):
    return [pre_tokenizers.Split(Regex(pattern), "isolated", invert=False) for pattern in patterns]


def make_families():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    deepseek = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"]
    bos = "<｜begin▁of▁sentence｜> $A"
    return {
        "mixtral": make_mixtral(),
        "olmoe": make_olmoe(),
        "granite": make_byte_level("granite", None, [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)], 256 + 310,
                                   ["<|end_of_text|>", "<fim_prefix>", "<|start_of_role|>"]),
        "deepseek_v2": make_byte_level("deepseek_v2", None, split_steps(DEEPSEEK_V2_SPLITS) + [digits, byte_level],
                                       256 + 330, deepseek, template=bos),
        "deepseek_v3": make_byte_level("deepseek_v3", None, split_steps(DEEPSEEK_V3_SPLITS) + [byte_level], 256 + 340,
                                       deepseek, template=bos),
        "gpt_oss": make_byte_level("gpt_oss", None, split_steps([O200K_SPLIT]) + [byte_level], 256 + 350,
                                   ["<|startoftext|>", "<|start|>", "<|channel|>", "<|end|>"], ignore_merges=True),
    }


def make_mixtral():
    """SentencePiece's BPE as converted: no pre-tokenizer, marks for spaces, bytes for what has no token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TRAIN.strip().split("\n") * 2, trainers.BpeTrainer(
        vocab_size=600, limit_alphabet=110, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    texts = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % byte for byte in range(256)]
    texts += sorted(model["vocab"], key=model["vocab"].get) + ["▁▁", "▁▁▁▁", "▁\n"]
    vocab = {text: i for i, text in enumerate(texts)}
    merges = [tuple(pair) for pair in model["merges"]] + [("▁", "▁"), ("▁▁", "▁▁")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([special(text) for text in texts[:3]])
    tokenizer.add_tokens([AddedToken("[INST]", normalized=False), AddedToken("lone", normalized=True, single_word=True),
                          AddedToken("<both>", lstrip=True, rstrip=True, normalized=False)])
    return save(tokenizer, "mixtral")


def mixtral_patches():
    mark = "▁"

    def replace(pattern, content, kind="String"):
        return {"type": "Replace", "pattern": {kind: pattern}, "content": content}

    def sequence(key, *steps):
        return {"type": "Sequence", key: list(steps)}

    def metaspace(scheme, split):
        return {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": mark, "prepend_scheme": scheme,
                                                      "split": split}}
    strip = {"type": "Strip", "content": " ", "start": 2, "stop": 0}
    to_space, fallback, fuse = replace(mark, " "), {"type": "ByteFallback"}, {"type": "Fuse"}
    space_split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    marked = sequence("normalizers", {"type": "Prepend", "prepend": mark}, replace(" ", mark))
    no_bytes = {"byte_fallback": False, "fuse_unk": True}
    decoder = {"type": "Metaspace", "replacement": mark, "prepend_scheme": "always", "split": True}
    return {
        "mistral_first": metaspace("first", False),
        "metaspace_always": dict(metaspace("always", True), decoder=decoder),
        "metaspace_never": dict(metaspace("never", True), decoder=dict(decoder, prepend_scheme="never")),
        "metaspace_first": dict(metaspace("first", True), decoder=sequence("decoders", decoder, fallback)),
        "gemma": {"normalizer": replace(" ", mark), "pre_tokenizer": space_split,
                  "decoder": sequence("decoders", to_space, fallback, fuse)},
        "no_fuse": {"model": {"byte_fallback": False, "fuse_unk": False}},
        "fused_unk": {"model": no_bytes, "decoder": sequence("decoders", to_space, fuse, strip)},
        "no_unk": {"model": dict(no_bytes, unk_token=None)},
        "whole_words": dict(metaspace("always", True), model={"ignore_merges": True}),
        "nfkc": {"normalizer": sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"}, *marked["normalizers"])},
        "nfkd": {"normalizer": sequence("normalizers", {"type": "NFKD"}, {"type": "Strip", "strip_left": True,
                                                                          "strip_right": True}, replace(" ", mark))},
        "nfd": {"normalizer": sequence("normalizers", {"type": "NFD"}, replace(r"\s{2,}|\d", "▁x", "Regex"),
                                       replace("x*", "-", "Regex"), replace(" ", mark)),
                "pre_tokenizer": sequence("pretokenizers", {"type": "Digits", "individual_digits": False}, space_split)},
    }


def patched(document, patch):
    """`patch` replaces keys of the document; its "model" is merged into the document's."""
    document = copy.deepcopy(document)
    for key, value in patch.items():
        if key == "model":
            document[key].update(value)
        else:
            document[key] = value
    return document


def make_variants(tokenizers):
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
    digits = {"type": "Digits", "individual_digits": True}
    patches["digits"] = steps(digits)
    patches["digit_runs"] = steps(dict(digits, individual_digits=False), split(r"\p{L}+"))
    for behavior in ["Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            patches[f"{behavior}{'_invert' if invert else ''}"] = steps(split(r"\p{L}+|\d", behavior, invert))
    patches = {"llama3": patches, "mixtral": mixtral_patches()}
    (HERE / "variants.json").write_text(json.dumps(patches, ensure_ascii=True, indent=1) + "\n")
    return {base: {name: Tokenizer.from_str(json.dumps(patched(json.loads(tokenizers[base].to_str()), patch)))
                   for name, patch in sorted(each.items())} for base, each in patches.items()}
