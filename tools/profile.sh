#!/usr/bin/env bash
# The training step by operation, as a table and a flame graph, from perf's samples of `switchyard bench train`.
#
#   tools/profile.sh                                       switch-mini-8, into build/profile
#   tools/profile.sh --out FOLDER --model switch-base-8 --batch 2 --threads 1     any option of bench train
#
# Writes table.txt, stacks.txt (folded, for other tools) and flame.svg there. It needs perf and the right to use it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=build/profile
arguments=(--model switch-mini-8)
case "${1:-}" in
  -h | --help) sed -n '2,7s/^# \?//p' "$0"; exit 0 ;;
  --out) out=${2:?--out needs a folder}; shift 2 ;;
esac
[ $# -eq 0 ] || arguments=("$@")

program=${SWITCHYARD_PROGRAM:-build/release/switchyard}
missing() { echo "profile: $1" >&2; exit 2; }
[ -x "$program" ] || missing "$program is missing; run \`make build\`"
command -v perf >/dev/null || missing "perf is missing; install it (Debian: apt-get install linux-perf)"
mkdir -p "$out"
perf record -q -o "$out/probe.data" true 2>"$out/perf.log" ||
  missing "perf may not sample here: $(tail -1 "$out/perf.log"); as root: sysctl kernel.perf_event_paranoid=1 (now $(cat /proc/sys/kernel/perf_event_paranoid))"
rm -f "$out/probe.data"

# Stacks by the tables of exceptions, as release builds keep no frame pointers; the first second is reading and warm-up.
perf record -q -D 1000 -F 199 --call-graph dwarf,16384 -o "$out/perf.data" \
  "$program" bench train "${arguments[@]}" --json >"$out/bench.json" 2>"$out/perf.log" ||
  missing "bench train ${arguments[*]} did not end well: $(tail -3 "$out/perf.log")"
perf script -i "$out/perf.data" --no-inline -F comm,tid,ip,sym,dso 2>>"$out/perf.log" |
  python3 tools/profile_stacks.py --bench "$out/bench.json" --stacks "$out/stacks.txt" --svg "$out/flame.svg" | tee "$out/table.txt"
rm -f "$out/perf.data"
echo "flame graph: $out/flame.svg"
