#!/usr/bin/env bash
# Folder dependencies, clang-format and clang-tidy. Without --all clang-tidy reads only the files changed since the last
# commit (12 s each); the cheap checks always read everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python3 scripts/check_includes.py
python3 scripts/check_paper_map.py

list() { git ls-files --cached --others --exclude-standard "$@"; }
list 'src/*.cc' 'src/*.h' 'tests/*.cc' 'tests/*.h' 'bench/*.cc' 'examples/*.cc' 'fuzz/*.cc' 'fuzz/*.h' | xargs -r clang-format --dry-run -Werror
echo "format: fine"

test -f build/dev/build.ninja || cmake --preset dev >/dev/null
if [[ "${1:-}" == --all ]]; then
  mapfile -t files < <(list 'src/*.cc')
else
  mapfile -t files < <({ git diff --name-only --diff-filter=d HEAD -- 'src/*.cc'; list --exclude-standard 'src/*.cc' \
    | grep -vxFf <(git ls-files 'src/*.cc') || true; } | sort -u)
fi
if ((${#files[@]})); then
  printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy -p build/dev --quiet
fi
echo "clang-tidy: ${#files[@]} files, fine"
