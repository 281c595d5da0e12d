#!/usr/bin/env python3
"""What every file of the repository must be: clean whitespace, short, small, links that lead somewhere, no
forbidden words.

Looks at the files git would commit. The lists below hold the exceptions, each with its reason.
"""
import ast
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = (".cc", ".h", ".py", ".sh", ".proto", ".cmake")
TEXT = SOURCE + (".txt", ".md", ".yaml", ".yml", ".json", ".in", "")
MADE_BY_TOOLS = ("tests/golden/", "models/demo/", "models/locmoe/", "tests/fuzz/corpus/", "LICENSE")  # whitespace is theirs

MAX_SOURCE_LINES = 500
LONG_SOURCES = {}  # path -> why it may be longer

MAX_BYTES = 256 * 1024
LARGE_FILES = {  # path -> (bytes, why)
    "models/demo/model.safetensors": (24_000_000, "the demo model"),
    "models/locmoe/model.safetensors": (24_000_000, "the demo model of the routing work"),
    "models/demo/tokenizer.json": (270_000, "belongs to the model"),
    "models/locmoe/tokenizer.json": (270_000, "belongs to the model"),
    "tests/golden/plain_f32/model.safetensors": (300_000, "a golden checkpoint in f32"),
    "tests/tokenizer/data/corpus.jsonl": (1_250_000, "strings and the ids that Hugging Face tokenizers gives them"),
}

# In pieces, so that this file does not contain what it looks for.
FORBIDDEN = {
    r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b": "unfinished work: open an issue instead",
    r"\b(pypi|pythonhosted|npmjs|anaconda|crates)\.(org|com|io)\b": "a registry's host: use its ordinary client",
    r"\b(deb|security|ftp)\.debian\.org\b": "a registry's host: use its ordinary client",
    r"\b(ghcr|quay|docker)\.io\b|\bhuggingface\.co\b": "a registry's host: use its ordinary client",
    r"(?<![\w.}-])/(wo" r"rk|ro" r"ot|ho" r"me)/\w": "a path of one machine",
    r"-----BEGIN [A-Z ]*PRIVATE" r" KEY-----": "a private key",
}


def committed_files():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True,
                            check=True).stdout.decode().split("\0")
    return sorted(path for path in listed if path and (ROOT / path).is_file())


def whitespace_problems(path, text):
    if "\r" in text:
        yield f"{path}: carriage returns"
    if text and not text.endswith("\n"):
        yield f"{path}: no newline at the end"
    if text.endswith("\n\n"):
        yield f"{path}: empty lines at the end"
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield f"{path}:{number}: whitespace at the end of the line"
        if "\t" in line and path.endswith(SOURCE):
            yield f"{path}:{number}: tab"


def broken_links(path, text):
    """Relative links of Markdown to files that are not there."""
    for match in re.finditer(r"\]\(([^)#:\s]+)(#[^)]*)?\)", text):
        if not (ROOT / path).parent.joinpath(match[1]).exists():
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: link to {match[1]}, which does not exist"


def problems_of(path):
    full = ROOT / path
    size = full.stat().st_size
    limit, _ = LARGE_FILES.get(path, (MAX_BYTES, ""))
    if size > limit:
        yield f"{path}: {size} bytes, at most {limit} (LARGE_FILES in tests/lint/check_files.py)"
    content = full.read_bytes()
    if content.startswith(b"#!") and not os.access(full, os.X_OK):
        yield f"{path}: starts with #! but is not executable"
    if not path.endswith(TEXT) and full.suffix or b"\0" in content:
        return
    text = content.decode("utf-8", errors="replace")
    if not path.startswith(MADE_BY_TOOLS):
        yield from whitespace_problems(path, text)
    if path.endswith(".md"):
        yield from broken_links(path, text)
    num_lines = text.count("\n")
    if path.endswith(SOURCE) and num_lines > MAX_SOURCE_LINES and path not in LONG_SOURCES:
        yield f"{path}: {num_lines} lines, at most {MAX_SOURCE_LINES} (LONG_SOURCES in tests/lint/check_files.py)"
    if path.endswith(".py"):
        try:
            ast.parse(text)
        except SyntaxError as error:
            yield f"{path}:{error.lineno}: {error.msg}"
    for pattern, reason in FORBIDDEN.items():
        for match in re.finditer(pattern, text):
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: '{match[0]}': {reason}"


def main():
    files = committed_files()
    problems = [problem for path in files for problem in problems_of(path)]
    print("\n".join(problems + [f"{len(files)} files, {len(problems)} problems"]))
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main())
