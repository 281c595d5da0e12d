#!/usr/bin/env bash
# An object compiled for a newer instruction set must not offer the linker a shared ("weak") copy of
# any inline function: the program might then run that copy on a processor without those
# instructions. Usage: check_isa_symbols.sh "OBJECT;OBJECT.."
set -euo pipefail
object=$(tr ';' '\n' <<<"$1" | grep '/isa_avx2\.')
symbols=$(nm -C "$object")
if weak=$(grep -E ' [VWuw] ' <<<"$symbols"); then
  echo "$object: shared symbols; keep them in an anonymous namespace:"
  echo "$weak"
  exit 1
fi
grep -q ' T gatehouse::cpu::Avx2Kernels()' <<<"$symbols"
