#!/usr/bin/env bash
# Trains a dictionary for the bodies of the journal from the project's own test messages and what is made of them.
#
#   engine/src/journal/dictionary/train.sh 2        # writes 2.zstd beside this file
#
# A dictionary that a release has used is never changed or removed: what was packed with it cannot be read without it.
# A new one gets the next number, a codec of its own in codec.rs, and is used for what is packed from then on.
set -euo pipefail
number=$1
here=$(cd "$(dirname "$0")" && pwd)
testdata=$here/../../../../testdata
[ ! -e "$here/$number.zstd" ] || { echo "$number.zstd is there already: it is never changed" >&2; exit 1; }
samples=$(mktemp -d)
trap 'rm -rf "$samples"' EXIT
one=0
# Whole documents would crowd everything else out.
while IFS= read -r message; do
  one=$((one + 1))
  tr '\n' '\r' <"$message" >"$samples/$one.hl7"
done < <(find "$testdata" -name '*.hl7' -size -40k | LC_ALL=C sort)
while IFS= read -r output; do
  one=$((one + 1))
  jq -cj . "$output" >"$samples/$one.json"
done < <(find "$testdata" -name '*.json' -size -400k | LC_ALL=C sort)
zstd -q --train-cover "$samples"/* --maxdict=65536 --dictID="$number" -o "$here/$number.zstd"
