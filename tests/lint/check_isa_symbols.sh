#!/usr/bin/env bash
# An object compiled for a newer instruction set must not offer the linker a shared ("weak") copy of
# any inline function: the program might then run that copy on a processor without those
# instructions. Usage: check_isa_symbols.sh "OBJECT;OBJECT.."
set -euo pipefail
mapfile -t objects < <(tr ';' '\n' <<<"$1" | grep -E '/(isa|quant)_avx[0-9a-z]*\.')
[ ${#objects[@]} -ge 4 ] || { echo "expected four objects or more, got: ${objects[*]}"; exit 1; }
for object in "${objects[@]}"; do
  symbols=$(nm -C "$object")
  if weak=$(grep -E ' [VWuw] ' <<<"$symbols"); then
    echo "$object: shared symbols; keep them in an anonymous namespace:"
    echo "$weak"
    exit 1
  fi
  grep -qE ' T gatehouse::cpu::.*Kernels\(\)' <<<"$symbols"
done
