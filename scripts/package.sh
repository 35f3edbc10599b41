#!/usr/bin/env bash
# A folder that runs on a bare Linux machine: the program, every library it loads but the C library, run files, manual page, licences.
#
#   scripts/package.sh BUILD OUT             OUT/switchyard-VERSION-linux-ARCH/ and the same as .tar.zst
#   scripts/package.sh BUILD OUT folder      the folder alone
#
# BUILD is a build folder with `switchyard` in it. The machine needs a C library at least as new as this one's. Folders may be moved.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# < 2)); then sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; fi
program=$1/switchyard out=$2 form=${3:-archive}

version=$("$program" --version)
name=switchyard-$version-linux-$(uname -m)
folder=$out/$name
rm -rf "$folder"
mkdir -p "$folder/lib" "$folder/licences"

cp "$program" "$folder/lib/switchyard"
# What the loader finds for the program now. The C library stays the machine's own, as the kernel's loader does.
ldd "$program" | awk '$2 == "=>" {print $3}' | grep -vE '/(libc|libm|libdl|librt|libpthread)\.so\.[0-9]+$' | while read -r library; do
  cp --dereference "$library" "$folder/lib/"
  package=$(dpkg-query --search "*/$(basename "$(realpath "$library")")" 2>/dev/null | cut -d: -f1 | head -n 1 || true)
  if [[ -f "/usr/share/doc/$package/copyright" ]]; then cp "/usr/share/doc/$package/copyright" "$folder/licences/$package"; fi
done
for licence in .venv/lib/python3*/site-packages/torch-*.dist-info/{,licenses/}{LICENSE,NOTICE}; do
  if [[ -f "$licence" ]]; then cp "$licence" "$folder/licences/torch-$(basename "$licence")"; fi
done
cp LICENSE README.md "$folder/"
cp -r configs docs "$folder/"
mkdir -p "$folder/share/man/man1" "$folder/share/bash-completion/completions"
python3 scripts/manual.py "$program" >"$folder/share/man/man1/switchyard.1"
python3 scripts/completion.py "$program" >"$folder/share/bash-completion/completions/switchyard"

cat >"$folder/switchyard" <<'END'
#!/bin/sh
# The program with the libraries that lie beside it.
folder=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$folder/lib/switchyard" "$@"
END
chmod +x "$folder/switchyard"

if [[ "$form" == archive ]]; then
  tar --create --directory "$out" --zstd --file "$folder.tar.zst" "$name"
  echo "$folder.tar.zst"
else
  echo "$folder"
fi
