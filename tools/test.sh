#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that needs no GPU. The last line is
# "N passed, N failed"; the exit code is 0 when nothing failed.
set -uo pipefail
cd "$(dirname "$0")/.."
source tools/common.sh

long=0
usage() {
  echo "usage: tools/test.sh [--long]"
  echo "  --long   also: everything under AddressSanitizer and ThreadSanitizer, long fuzzing, soaks"
}
for argument in "$@"; do
  case "$argument" in
    --long) long=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

passed=0
failed=0
times=()
failures=()

count() { # PASSED FAILED WHAT
  passed=$((passed + $1))
  failed=$((failed + $2))
  if (($2 > 0)); then failures+=("$3: $2 failed"); fi
}

part() { # NAME FUNCTION
  say "$1"
  local began=$SECONDS
  "$2"
  times+=("$(printf '%5d s  %s' $((SECONDS - began)) "$1")")
}

finish() {
  say "Time per part"
  printf '%s\n' "${times[@]}"
  if ((${#failures[@]} > 0)); then
    say "Failures"
    printf '%s\n' "${failures[@]}"
  fi
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [[ $failed -eq 0 && $passed -gt 0 ]]
  exit $?
}

# configure_and_build PRESET TARGET...: 1 and a counted failure when it does not build.
configure_and_build() {
  local preset=$1 target options=()
  shift
  for target in "$@"; do options+=(--target "$target"); done
  if ! cmake --preset "$preset" > "build-$preset.log" 2>&1; then
    tail -20 "build-$preset.log"
    count 0 1 "configuring $preset"
    return 1
  fi
  rm -f "build-$preset.log"
  if ! cmake --build --preset "$preset" -j "$(jobs)" "${options[@]}"; then
    count 0 1 "building $preset"
    return 1
  fi
}

# run_ctest FOLDER WHAT [ARGUMENTS...]: counts Catch2's test cases; a program that says nothing counts as one.
run_ctest() {
  local folder=$1 what=$2 numbers
  shift 2
  ctest --test-dir "$folder" --output-on-failure "$@"
  numbers="$(python3 - "$folder/Testing/Temporary/LastTest.log" << 'PYTHON'
import re, sys
try:
    log = open(sys.argv[1], errors="replace").read()
except OSError:
    print("0 1")
    sys.exit()
passed = failed = 0
for run in re.split(r"^\d+/\d+ Testing: ", log, flags=re.M)[1:]:
    good = "\nTest Passed." in run
    cases = re.search(r"All tests passed \(.* in (\d+) test cases?\)", run)
    mixed = re.search(r"test cases:\s*(\d+)(?: \|\s*(\d+) passed)?(?: \|\s*(\d+) failed)?", run)
    if good:
        passed += int(cases[1]) if cases else 1
    elif mixed:
        passed += int(mixed[2] or 0)
        failed += max(1, int(mixed[3] or 0))
    else:
        failed += 1
print(passed, failed)
PYTHON
)"
  # shellcheck disable=SC2086
  count $numbers "$what"
}

install() {
  local clang
  install_packages "${packages[@]}" clang git etcd-server
  # For relays and partitions between network namespaces, and clocks that jump; without them those tests are skipped.
  if [[ $long -eq 1 ]]; then install_packages iproute2 nftables libfaketime; fi
  clang="$(clang --version 2> /dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p' | head -1)"
  # The sanitizers' run-time is a package of its own since clang 14.
  [[ -n "$clang" ]] && install_packages "libclang-rt-$clang-dev"
}

build_release() { configure_and_build release || finish; }

fetch_model() { bash tools/fetch_model.sh || count 0 1 "fetching the default model"; }

rooms() {
  if python3 tests/rooms_test.py; then count 1 0 rooms; else count 0 1 "rules between rooms"; fi
}

unit() { run_ctest build "unit tests"; }

# integration_with FOLDER WHAT: the integration tests with the programs of that build.
integration_with() {
  local python=.venv-tests/bin/python line
  [[ -x $python ]] || python3 -m venv .venv-tests || { count 0 1 "making a virtual environment"; return; }
  "$python" -m pip install -q openai || { count 0 1 "installing the OpenAI client from PyPI"; return; }
  if [[ ${HEXGEN_LONG:-0} -eq 1 ]]; then
    "$python" -m pip install -q 'schemathesis>=4,<5' || { count 0 1 "installing schemathesis from PyPI"; return; }
  fi
  "$python" tests/integration/run.py --build "$1" | tee "$1/integration.log"
  line="$(tail -1 "$1/integration.log")"
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    count "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "$2"
  else
    count 0 1 "$2 (it ended early)"
  fi
}

integration() {
  if [[ $long -eq 1 ]]; then export HEXGEN_LONG=1; fi
  integration_with build integration
  unset HEXGEN_LONG
}

guidellm() {
  local python=.venv-guidellm/bin/python
  [[ -x $python ]] || python3 -m venv .venv-guidellm || { count 0 1 "making a virtual environment"; return; }
  "$python" -m pip install -q 'guidellm>=0.8,<0.9' gguf || { count 0 1 "installing guidellm from PyPI"; return; }
  if "$python" tests/integration/guidellm_load.py; then count 1 0 guidellm; else count 0 1 guidellm; fi
}

asan_core() { configure_and_build asan-core && run_ctest build-asan-core "unit tests under AddressSanitizer"; }

fuzz() { # seconds each
  local seconds=${fuzz_seconds:-20} target name corpus
  configure_and_build fuzz fuzz_targets || return
  ctest --test-dir build-fuzz -R fuzz_seeds > /dev/null || true
  for target in build-fuzz/fuzz_*; do
    [[ -x $target && -f $target ]] || continue
    name=${target##*/fuzz_}
    [[ $name == seeds ]] && continue
    corpus=build-fuzz/fuzz_corpus/$name
    mkdir -p "$corpus"
    if "$target" "$corpus" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
      -print_final_stats=1 -artifact_prefix="build-fuzz/crash-$name-" > "build-fuzz/$name.log" 2>&1; then
      echo "ok    fuzz_$name  $(sed -n 's/stat::number_of_executed_units: *//p' "build-fuzz/$name.log") inputs"
      count 1 0 "fuzz $name"
    else
      tail -30 "build-fuzz/$name.log"
      count 0 1 "fuzz $name"
    fi
  done
}

asan_all() {
  configure_and_build asan && run_ctest build-asan "everything under AddressSanitizer" || return
  # What is freed stays with the sanitizer for a while; a soak that bounds memory must not count it.
  ASAN_OPTIONS="quarantine_size_mb=8" integration_with build-asan "integration under AddressSanitizer"
}
tsan_all() {
  local prefix
  prefix=$(bash tools/tsan_caf.sh) || { count 0 1 "building CAF under ThreadSanitizer"; return; }
  # UCX must not hook the allocator that the sanitizer replaces. A simulated history has one thread:
  # a thousand show that those who share out the seeds do not meet.
  export UCX_MEM_EVENTS=no TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" HEXGEN_CHAOS_SEEDS=1000
  CMAKE_PREFIX_PATH=$prefix configure_and_build tsan && run_ctest build-tsan "everything under ThreadSanitizer" &&
    cmake -DHEXGEN_SANITIZE_KERNELS=OFF build-tsan > /dev/null &&
    cmake --build build-tsan -j "$(jobs)" --target hexgen &&
    TSAN_OPTIONS="$TSAN_OPTIONS halt_on_error=1" HEXGEN_MEMORY_SCALE=6 integration_with build-tsan "integration under ThreadSanitizer"
  unset UCX_MEM_EVENTS TSAN_OPTIONS HEXGEN_CHAOS_SEEDS
}

simulated() {
  if build/tests/chaos/simulate --seeds 1000000; then count 1 0 simulate; else count 0 1 "10^6 simulated seeds"; fi
}

# script WHAT COMMAND...: one that says by its exit code whether all was well.
script() {
  local what=$1
  shift
  if "$@"; then count 1 0 "$what"; else count 0 1 "$what"; fi
}

faults() {
  local line
  python3 tests/integration/run.py --long --only 'test_faults|test_partitions|test_relay' | tee build/faults.log
  line="$(tail -1 build/faults.log)"
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    count "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" faults
  else
    count 0 1 "faults (they ended early)"
  fi
}

kills() {
  script "240 kills" python3 tests/chaos/kill_matrix.py --rounds 4
  script "60 kills with stage-local recovery" python3 tests/chaos/kill_matrix.py --rounds 1 --stage-recovery
  script "stage-local recovery against all layers" python3 tests/chaos/stage_recovery.py
  script "recovery times" python3 tests/chaos/recovery_times.py
  script "a join under load" python3 tests/chaos/join_under_load.py
}

churn() { script "two hours of churn" python3 tests/chaos/churn.py --minutes 120; }

planner() {
  script "the planner against brute force" \
    env HEXGEN_LONG=1 build/test_scheduler "[layout_optimum],[group_search]"
}

part "Packages" install
part "Release build" build_release
part "Default model" fetch_model
part "Rules between rooms" rooms
part "Unit tests" unit
part "Integration tests with real processes" integration
part "AddressSanitizer and UBSan, rooms without CAF" asan_core
part "Fuzzing" fuzz
if [[ $long -eq 1 ]]; then
  part "AddressSanitizer and UBSan, everything" asan_all
  part "ThreadSanitizer, everything" tsan_all
  fuzz_seconds=600
  part "Fuzzing, long" fuzz
  part "Simulated seeds" simulated
  part "Faults" faults
  part "Kill matrix and recovery times" kills
  part "Churn" churn
  part "Planner against brute force" planner
  part "guidellm against the gateway" guidellm
fi
finish
