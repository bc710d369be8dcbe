#!/usr/bin/env bash
# Measures RingMQ on 1, 2, 4, ... shards: a fan-out, pairs across shards, connects; loadgen on the other CPUs.
#
#   scripts/scale.sh                         builds both, shards 1, 2, 4, ... up to half of the CPUs
#   scripts/scale.sh --shards 1,2,4,8 --cpus 0-15 --rounds 3
#   RINGMQ=./ringmq LOADGEN=./loadgen scripts/scale.sh    nothing is built: for copies on another machine (or --ringmq, --loadgen)
#
# `scripts/scale.sh --help` lists the rest; scripts/scale.py measures. Python 3.11 or later, and taskset.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

given() {
  local option=$1 word
  shift
  for word in "$@"; do
    case $word in "$option" | "$option"=* | --help | -h) return 0 ;; esac
  done
  return 1
}

build() {
  (cd "$root" && cargo build --quiet --release "$@") >&2
}

if [ -z "${RINGMQ:-}" ] && ! given --ringmq "$@"; then
  build --bin ringmq
  export RINGMQ=$root/target/release/ringmq
fi
if [ -z "${LOADGEN:-}" ] && ! given --loadgen "$@"; then
  build -p loadgen
  export LOADGEN=$root/target/release/loadgen
fi
exec python3 "$root/scripts/scale.py" "$@"
