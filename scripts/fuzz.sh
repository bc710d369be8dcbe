#!/usr/bin/env bash
# Fuzzes the codec, the trie, the retained store, whole connections, what lies under MQTT, and the files of
# users and access rules, with libFuzzer.
#
#   scripts/fuzz.sh            60 seconds over all targets, after all kept inputs
#   scripts/fuzz.sh 1800       so many seconds in total
#   scripts/fuzz.sh 600 frames connection
#   RINGMQ_FUZZ_SEED=7 ...     another path through the inputs; 1 if not given, so that a short run says the same twice
#
# Builds what `cargo fuzz build --sanitizer none` builds, with the ordinary toolchain: the code under test has no
# unsafe blocks, so coverage is what is needed. New inputs gather in target/fuzz-corpus; a failing one is kept
# under fuzz/artifacts, and the command that replays it is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  targets=(frames packets_v3 packets_v5 topics matching connection passwords acl layers records salvage mosquitto)
fi
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks"

RUSTFLAGS=$coverage cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" \
  --target-dir target/fuzz
each=$((seconds / ${#targets[@]}))
for target in "${targets[@]}"; do
  corpus=target/fuzz-corpus/$target
  artifacts=fuzz/artifacts/$target
  log=target/fuzz-corpus/$target.log
  mkdir -p "$corpus" "$artifacts"
  kept=(fuzz/seeds/"$target")
  [ -d "fuzz/regressions/$target" ] && kept+=("fuzz/regressions/$target")
  if ! "target/fuzz/$host/release/$target" -seed="${RINGMQ_FUZZ_SEED:-1}" -max_total_time="$each" -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
    -artifact_prefix="$artifacts/" -print_final_stats=1 "$corpus" "${kept[@]}" >"$log" 2>&1; then
    tail -40 "$log" >&2
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
    echo "$target fails; again: target/fuzz/$host/release/$target ${input:-}" >&2
    exit 1
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  echo "$target: $runs inputs in $each s, $covered edges covered"
done
