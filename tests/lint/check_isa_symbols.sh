#!/usr/bin/env bash
# An object compiled for a newer instruction set must not offer the linker a shared ("weak") copy of
# any inline function: the program might then run that copy on a processor without those
# instructions. Usage: check_isa_symbols.sh "OBJECT;OBJECT.."
set -euo pipefail
object=$(tr ';' '\n' <<<"$1" | grep '/isa_avx2\.')
weak=$(nm -C "$object" | grep -E ' [VWuw] ' || true)
if [[ -n "$weak" ]]; then
  echo "$object: shared symbols; keep them in an anonymous namespace:"
  echo "$weak"
  exit 1
fi
nm -C "$object" | grep ' T gatehouse::cpu::Avx2Kernels()' >/dev/null
