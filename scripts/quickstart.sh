#!/usr/bin/env bash
# From text to a trained sparse model and its dense twin, compared: what `make quickstart` runs.
#
#   scripts/quickstart.sh [FILE or FOLDER ...]     text of your own (.txt, .md, .jsonl, .gz); default: Debian's dictionary and manuals
#
# Environment: MINUTES of training over both models (6), OUT (quickstart), VOCAB_SIZE (one piece for 300 bytes of
# text, 500 to 8000), PROGRAM (by default build/release/switchyard, built while the text is prepared).
# Each stage is done again only when what it is made from has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MINUTES=${MINUTES:-6}
OUT=${OUT:-quickstart}
if [[ -n "${PROGRAM:-}" ]]; then build=true; else PROGRAM=build/release/switchyard build="make --no-print-directory program"; fi
mkdir -p "$OUT"
FOLDER=$(realpath "$OUT")  # run files take paths relative to themselves

# stage NAME KEY PRODUCT COMMAND...: runs the command unless it made the product before under the same key.
stage() {
  local stamp="$OUT/.$1.done" key=$2 product=$3
  shift 3
  if [[ -e "$product" && -f "$stamp" && "$(<"$stamp")" == "$key" ]]; then return; fi
  rm -f "$stamp"
  "$@"
  printf '%s' "$key" >"$stamp"
}

digest() { sha256sum | cut -c1-32; }

# Names, sizes and times stand for the content of input files: reading gigabytes to learn that nothing changed takes long.
text_key() {
  {
    cat scripts/quickstart_text.py
    printf '%s\n' "$@"
    if (($#)); then find "$@" -type f -printf '%p %s %T@\n' 2>/dev/null | sort || true; else dpkg-query -W dict-gcide perl-doc 2>/dev/null || true; fi
  } | digest
}

make_vocabulary() {
  echo "vocabulary: learning $VOCAB_SIZE pieces"
  "$PROGRAM" vocab train --text "$OUT/text/train.jsonl" --size "$VOCAB_SIZE" --max-text-bytes 10000000 --out "$OUT/spiece.model"
}

compare() {
  rm -rf "$OUT/run"
  echo "training: a sparse and a dense model side by side, $MINUTES minutes"
  "$PROGRAM" compare configs/quickstart/sparse.toml configs/quickstart/dense.toml --out "$OUT/run" --minutes "$MINUTES" \
    --set "data.text=[\"$FOLDER/text/train.jsonl\"]" --set "data.eval_text=[\"$FOLDER/text/held_out.jsonl\"]" \
    --set "data.vocab=\"$FOLDER/spiece.model\"" >"$OUT/comparison.txt.part"
  mv "$OUT/comparison.txt.part" "$OUT/comparison.txt"
}

text_key=$(text_key "$@")
stage text "$text_key" "$OUT/text/held_out.jsonl" python3 scripts/quickstart_text.py "$OUT/text" "$@" &
text=$!
$build
wait "$text"
if [[ -z "${VOCAB_SIZE:-}" ]]; then
  VOCAB_SIZE=$(($(stat -c %s "$OUT/text/train.jsonl") / 300))
  VOCAB_SIZE=$((VOCAB_SIZE < 500 ? 500 : VOCAB_SIZE > 8000 ? 8000 : VOCAB_SIZE))
fi
stage vocabulary "$text_key $VOCAB_SIZE" "$OUT/spiece.model" make_vocabulary
stage training "$text_key $VOCAB_SIZE $MINUTES $(cat "$PROGRAM" configs/quickstart/*.toml | digest)" "$OUT/comparison.txt" compare

cat "$OUT/comparison.txt"
"$PROGRAM" report "$OUT/run" --out "$OUT/report.html" >/dev/null
model="$OUT/run/sparse/checkpoints/$(<"$OUT/run/sparse/latest")"
cat <<END

Curves, routing and samples: $OUT/report.html
The sparse model is a Hugging Face model directory: $model
  $PROGRAM generate --model $model --prompt 'A small <extra_id_0> that lives in the <extra_id_1>.'
  $PROGRAM eval --model $model --text $OUT/text/held_out.jsonl --encoder-length 256
END
