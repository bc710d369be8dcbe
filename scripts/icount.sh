#!/usr/bin/env bash
# Counts the instructions of the core, without sockets, with valgrind: the same on a noisy machine.
#
#   scripts/icount.sh            compares with perf/icount.tsv; exit code 1 if a case got more than 3 % dearer
#   scripts/icount.sh --record   writes perf/icount.tsv
set -euo pipefail
cd "$(dirname "$0")/.."

baseline=perf/icount.tsv
# Name and how often it is called: so that the difference between once and three times as often is large.
# Pairs often enough that a new broker's look at who talks most has become rare.
cases="fanout-1000:50 fanout-1000-rules:50 fanout-1000-checked:50 fanout-1000x16:20 fanout-1000-16k:50 pair-qos0x10:20000 pair-qos1:100000 pair-qos2:100000 decode-5.0:500 match-10K:20000 records-to-1:1000 records-to-100:100"

command -v valgrind >/dev/null || {
  echo "valgrind is missing: apt-get install valgrind" >&2
  exit 2
}
bench=$(cargo bench --bench core --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"name":"core".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$bench" ] || {
  echo "the bench does not build: cargo bench --bench core --no-run" >&2
  exit 2
}

# Instructions of a case that is called so often.
instructions() {
  RINGMQ_BENCH_CASE=$1:$2 valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

measured=$(mktemp)
trap 'rm -f "$measured"' EXIT
for entry in $cases; do
  name=${entry%:*} times=${entry#*:}
  weight=$(RINGMQ_BENCH_CASE=$name:1 "$bench")
  once=$(instructions "$name" "$times")
  thrice=$(instructions "$name" $((3 * times)))
  awk -v name="$name" -v n="$((thrice - once))" -v d="$((2 * times * weight))" \
    'BEGIN { printf "%s\t%.1f\n", name, n / d }' >>"$measured"
done

if [ "${1:-}" = --record ]; then
  { echo "# instructions per delivery or operation; $(rustc --version)"; cat "$measured"; } >"$baseline"
  cat "$baseline"
  exit 0
fi
grep '^#' "$baseline"
awk -F '\t' '
  FNR == NR { if ($1 !~ /^#/) before[$1] = $2; next }
  {
    ratio = before[$1] > 0 ? $2 / before[$1] : 1
    printf "%-18s %10.1f  was %10.1f  x %.3f\n", $1, $2, before[$1], ratio
    if (ratio > 1.03) worse = 1
  }
  END { exit worse }' "$baseline" "$measured"
