#!/usr/bin/env bash
# Joins a module's kernels, compiled for three sets of instructions, into one object (cmake/SwitchyardKernels.cmake).
#
#   cmake/join_kernels.sh FOLDER MODULE LD NM OBJCOPY     FOLDER/{plain,avx2,avx512}.list name the objects; makes MODULE.o
set -euo pipefail
cd "$1"
module=$2 ld=$3 nm=$4 objcopy=$5
sets=(plain avx2 avx512)  # as in src/kernels/instruction_set.cc

# Each set's objects become one, whose inline functions and templates are its own: no group is left to be merged by name.
for set in "${sets[@]}"; do
  "$ld" -r --force-group-allocation -o "$module.$set.o" "@$set.list"
  "$nm" --defined-only --extern-only "$module.$set.o" |
    awk '$2 ~ /[TW]/ && $3 ~ /^_ZNK?10switchyard7kernels/ {print $3}' | LC_ALL=C sort -u >"$module.$set.functions"
done
# Inline functions may be left over in one set and not in another; what has a caller outside is in all of them.
LC_ALL=C comm -12 "$module.plain.functions" "$module.avx2.functions" |
  LC_ALL=C comm -12 - "$module.avx512.functions" >"$module.functions"

# "f" of a set becomes "f.set", which debuggers and profilers print as "f [clone .set]".
for set in "${sets[@]}"; do
  awk -v set="$set" '{print $1, $1 "." set}' "$module.functions" >"$module.$set.names"
  "$objcopy" --redefine-syms="$module.$set.names" "$module.$set.o"
  cut -d' ' -f2 "$module.$set.names" >"$module.$set.functions"
  "$objcopy" --keep-global-symbols="$module.$set.functions" "$module.$set.o"
done

# f: goes to the chosen set's copy; arguments stay where they are. r11 and rax are a callee's to use.
awk -v sets="${sets[*]}" '
  BEGIN {
    count = split(sets, set, " ")
    print ".hidden switchyard_instruction_set"
  }
  {
    printf ".text\n.p2align 4\n.weak %s\n.type %s, @function\n%s:\n", $1, $1, $1
    printf "  mov switchyard_instruction_set(%%rip), %%eax\n  lea .Ltable%d(%%rip), %%r11\n  jmp *(%%r11, %%rax, 8)\n", NR
    printf ".size %s, .-%s\n.section .data.rel.ro, \"aw\"\n.p2align 3\n.Ltable%d:", $1, $1, NR
    for (i = 1; i <= count; ++i) printf "%s %s.%s", i == 1 ? " .quad" : ",", $1, set[i]
    print ""
  }
  END { print ".section .note.GNU-stack, \"\", @progbits" }' "$module.functions" >"$module.s"
as -o "$module.jumps.o" "$module.s"

"$ld" -r -o "$module.joined.o" "$module.jumps.o" "$module.plain.o" "$module.avx2.o" "$module.avx512.o"
"$objcopy" --keep-global-symbols="$module.functions" "$module.joined.o" "$module.o"
if ! "$nm" --defined-only --extern-only "$module.o" | awk '{print $3}' | LC_ALL=C sort | diff - "$module.functions" >&2; then
  rm "$module.o"
  echo "join_kernels: $module.o shows other symbols than its functions" >&2
  exit 1
fi
