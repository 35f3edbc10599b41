#!/usr/bin/env bash
# Runs each fuzz target of build/fuzz for a number of seconds, from its kept inputs and those that earlier runs found.
# Ends with 1 if one finds something; its input then lies in build/fuzz/findings/ and belongs, once the fault is mended,
# into fuzz/corpus/TARGET.
#
#   scripts/fuzz.sh SECONDS [TARGET]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=$1
shift
targets=("$@")
if ((${#targets[@]} == 0)); then mapfile -t targets < <(ls fuzz/corpus); fi
mkdir -p build/fuzz/findings
found=()
for target in "${targets[@]}"; do
  mkdir -p "build/fuzz/corpus/$target"
  log=build/fuzz/findings/$target.log
  # 2 GiB in all, one allocation of 512 MiB, 10 s an input.
  if build/fuzz/fuzz/fuzz_"$target" -max_total_time="$seconds" -max_len=1048576 -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 \
      -detect_leaks=0 -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$target-" \
      "build/fuzz/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
  else
    found+=("$target")
    echo "$target: FOUND, see $log"
    tail -n 30 "$log"
  fi
done
if ((${#found[@]})); then
  echo "fuzz: findings in ${found[*]}" >&2
  exit 1
fi
