#!/usr/bin/env bash
# What can be said about the source without running it.
#
#   scripts/lint.sh format     clang-format every C++ file in place
#   scripts/lint.sh cheap      folder dependencies, what documents name, formatting: seconds
#   scripts/lint.sh changed    those, and clang-tidy on the files changed since the last commit, 10 s each
#   scripts/lint.sh all        those, and clang-tidy on every file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

list() { git ls-files --cached --others --exclude-standard "$@"; }
cpp_files() { list 'src/*.cc' 'src/*.h' 'tests/*.cc' 'tests/*.h' 'bench/*.cc' 'bench/*.h' 'examples/*.cc' 'fuzz/*.cc' 'fuzz/*.h' 'python/*.cc' 'python/*.h' 'cmake/*.h'; }

cheap() {
  python3 scripts/check_includes.py
  python3 scripts/check_paper_map.py
  python3 scripts/check_docs.py
  python3 scripts/check_words.py
  cpp_files | xargs clang-format --dry-run -Werror
  echo "format: fine"
}

# What clang-tidy says about one file. Counts of what it suppressed are left out; what it could not read is not: checks
# see nothing, or phantoms, behind a line that clang does not take.
tidy_file() {
  local said
  if said=$(clang-tidy -p build/dev --quiet "$1" 2>&1); then return; fi
  printf '%s\n' "$said" | grep -vE '^[0-9]+ (warnings|errors|warning|error)( and [0-9]+ errors?)? generated\.$'
  if [[ "$said" == *"[clang-diagnostic-error]"* || "$said" != *": error: "* ]]; then
    echo "$1: not checked in full, clang-tidy could not read it"
  fi
  return 1
}
export -f tidy_file

# Tests are left out: what GoogleTest's macros expand to breaks a dozen of these rules in every line.
# Reads file names from stdin; the findings of each file come out together.
tidy() {
  cmake --preset dev >/dev/null  # a file that is new since the last time would be read without its flags
  xargs -r -P "$(nproc)" -I{} bash -c 'tidy_file "$1"' tidy {}
  echo "clang-tidy: fine"
}

case "${1:-}" in
  format) cpp_files | xargs clang-format -i ;;
  cheap) cheap ;;
  changed)
    cheap
    { git diff --name-only --diff-filter=d HEAD -- 'src/*.cc'; git ls-files --others --exclude-standard 'src/*.cc'; } | sort -u | tidy
    ;;
  all)
    cheap
    list 'src/*.cc' | tidy
    ;;
  *) sed -n '2,7s/^# \?//p' "$0" >&2; exit 2 ;;
esac
