#!/usr/bin/env python3
"""llama.cpp's converter on a model whose tokenizer it does not know: to_gguf.py LLAMA_CPP_SOURCES MODEL OPTIONS..."""
import pathlib
import runpy
import sys

sources = pathlib.Path(sys.argv.pop(1)).resolve()
sys.path[:0] = [str(sources), str(sources / "gguf-py")]
import conversion.base  # noqa: E402

conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv[0] = str(sources / "convert_hf_to_gguf.py")
runpy.run_path(sys.argv[0], run_name="__main__")
