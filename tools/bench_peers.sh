#!/usr/bin/env bash
# Hexgen beside llama.cpp on this machine: same GGUF, same threads, one run, alternating.
#   tools/bench_peers.sh [--rounds N] [--threads "1 2"] [--serve [--clients "1 4 8 16 32"]]
# Builds the peer from PyPI's llama-cpp-python source into ${XDG_CACHE_HOME:-~/.cache}/hexgen/peers
# once (about ten minutes on two cores); nothing of it enters this repository.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=10
threads="1 2"
serve=()
while [ $# -gt 0 ]; do
  case "$1" in
    --rounds) rounds=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    --serve) serve+=(--serve); shift ;;
    --clients) serve+=(--clients "$2"); shift 2 ;;
    -h|--help) sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "bench_peers: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hexgen
model=${HEXGEN_MODEL:-$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf}
peers=${HEXGEN_PEERS:-$cache/peers}
version=0.3.36
bin=$peers/llama.cpp-$version/bin

if [ ! -f "$model" ]; then
  echo "bench_peers: no model at $model: run tools/fetch_model.sh" >&2
  exit 1
fi
if [ ! -x build/bench_cpu ]; then
  echo "bench_peers: build/bench_cpu is missing: cmake --preset release && ninja -C build" >&2
  exit 1
fi
if [ ! -x "$bin/llama-bench" ] || [ ! -x "$bin/llama-server" ]; then
  echo "bench_peers: building llama.cpp (llama-cpp-python $version) into $peers"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q scikit-build-core
  "$work/venv/bin/pip" download -q --no-deps --no-binary :all: --no-build-isolation \
    "llama-cpp-python==$version" -d "$work"
  tar -C "$work" -xzf "$work"/llama_cpp_python-*.tar.gz
  # On a machine with AMX g++ 12 may drop the stores that fill the tile configuration before it is
  # loaded, and the peer crashes. clang builds it without AMX, at a fifth of the speed.
  sed -i 's|_tile_loadconfig(&tc);|asm volatile("" : : "r"(\&tc) : "memory"); &|' \
    "$work"/llama_cpp_python-*/vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp
  cmake -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" -G Ninja \
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF > "$work/cmake.log"
  ninja -C "$work/build" llama-bench llama-server
  mkdir -p "$bin"
  cp "$work/build/bin/llama-bench" "$work/build/bin/llama-server" "$bin/"
fi

exec python3 tools/bench/compare_peers.py --model "$model" --llama "$bin" --rounds "$rounds" \
  --threads "$threads" "${serve[@]}"
