#!/bin/sh
# Fails if anything in an archive or library, but for what lies in the namespaces of the wide targets, has instructions
# that the baseline of x86-64 does not have. Every inline function of the standard library that the wide kernels use
# has a copy in their objects, and the linker keeps any one copy for all: a machine without AVX would die there.
#
#   one_target_each.sh OBJDUMP LIBRARY
set -eu
"$1" -d --no-show-raw-insn "$2" | awk '
  /^[0-9a-f]+ <.*>:$/ { name = $2; wide = name ~ /x86_64_v[34]/; functions++ }
  # AVX, AVX2, FMA and AVX-512 are all written with a v in front, or work on mask registers.
  /\t(v[a-z0-9]+|k[a-z]+[bwdq]) / && !/\tver[rw] / {
    if (wide) inside++
    else if (!seen[name]++) { print "not for every machine: " name; outside++ }
  }
  END {
    printf "%d functions, %d wide instructions where they belong, ", functions, inside
    printf "%d functions elsewhere with some\n", outside
    exit outside > 0 || inside == 0
  }'
