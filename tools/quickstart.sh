#!/usr/bin/env bash
# From a bare machine to a streamed answer: installs what is missing, builds, gets the default model,
# starts a coordinator and three unlike CPU agents, asks one question and stops what it started.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/common.sh

keep=0
usage() {
  echo "usage: tools/quickstart.sh [--keep]"
  echo "  --keep   leave the cluster running at the end"
}
for argument in "$@"; do
  case "$argument" in
    --keep) keep=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

began=$SECONDS
install_packages "${packages[@]}"

say "Building (a first build takes some minutes; later ones are quick)"
cmake --preset release > build-quickstart.log 2>&1 || { tail -20 build-quickstart.log >&2; fail "cmake failed"; }
rm -f build-quickstart.log
cmake --build --preset release -j "$(jobs)" --target hexgen || fail "the build failed; the first error is above"

say "The default model"
model="$(bash tools/fetch_model.sh)" || fail "the model could not be fetched"
echo "$model"

# A state folder of its own: the token of another cluster of this user stays as it is.
work="$(mktemp -d)"
export XDG_STATE_HOME="$work"
unset HEXGEN_CLUSTER_TOKEN HEXGEN_API_KEY 2> /dev/null || true
pids=()
stop_all() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
  rm -rf "$work"
}
trap stop_all EXIT

start() { # NAME ARGUMENTS...
  local name=$1
  shift
  build/hexgen "$@" > "$work/$name.log" 2>&1 &
  pids+=("$!")
}

say "Starting a coordinator and three agents of unlike speed and memory, none of which holds the model alone"
start serve serve smollm2 --device none --port 0 --fabric-port 0
for _ in $(seq 600); do
  line="$(grep -o 'http://[0-9.:]*/v1, fabric .*' "$work/serve.log" 2> /dev/null || true)"
  [[ -n "$line" ]] && break
  kill -0 "${pids[0]}" 2> /dev/null || { cat "$work/serve.log" >&2; fail "hexgen serve ended"; }
  sleep 0.1
done
[[ -n "${line:-}" ]] || { cat "$work/serve.log" >&2; fail "hexgen serve did not start"; }
http="${line%%/v1*}"
fabric="${line##*fabric }"
start quick join "$fabric" --name quick --device cpu:threads=1,memory=85MiB,speed=1
start middle join "$fabric" --name middle --device cpu:threads=1,memory=75MiB,speed=0.7
start slow join "$fabric" --name slow --device cpu:threads=1,memory=65MiB,speed=0.4

echo "waiting for them to measure themselves and to load their layers"
ready=0
for _ in $(seq 1200); do
  if build/hexgen status --address "$fabric" 2> /dev/null | grep -q ', ready'; then ready=1; break; fi
  sleep 0.1
done
if [[ $ready -eq 0 ]]; then
  build/hexgen status --address "$fabric" >&2 || true
  tail -n 15 "$work"/*.log >&2
  fail "the cluster did not become ready within two minutes; its state and logs are above"
fi

say "The plan"
build/hexgen status --address "$fabric"

say "An answer, streamed through all three"
question="$(python3 -c '
import json
cases = json.load(open("tests/golden/smollm2.json"))["cases"]
case = next(c for c in cases if c["id"] == "chat_simple")
print(next(m["content"] for m in case["messages"] if m["role"] == "user"))')"
echo "> $question"
build/hexgen chat "$question" --max-tokens 48 --stats --address "$fabric" || {
  tail -n 15 "$work"/*.log >&2
  fail "no answer came; the logs are above"
}

say "Done in $((SECONDS - began)) s"
if [[ $keep -eq 1 ]]; then
  trap - EXIT
  echo "Still running (logs in $work). Try:"
  echo "  curl $http/v1/chat/completions -H 'Content-Type: application/json' -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'"
  echo "  build/hexgen top --address $fabric"
  echo "Stop it with: kill ${pids[*]}"
fi
