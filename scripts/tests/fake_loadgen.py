#!/usr/bin/env python3
"""Says what it is told to: the first line of $FAKE_LOADGEN/script is its result, and is taken away.

A line has `verdict`, and optionally `rate`, `lost`, `exit_code`, `says` (on standard error, and no result). Its arguments are added to
$FAKE_LOADGEN/calls. The last line stays for those who come later.
"""

import json
import os
import sys
from pathlib import Path

if sys.argv[1] in ("report", "--version"):
    print("loadgen fake")
    sys.exit(0)
place = Path(os.environ["FAKE_LOADGEN"])
lines = (place / "script").read_text().splitlines()
if len(lines) > 1:
    (place / "script").write_text("\n".join(lines[1:]))
with open(place / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")
told = json.loads(lines[0])
if says := told.get("says"):
    print(says, file=sys.stderr)
    sys.exit(told.get("exit_code", 1))
rate = told.get("rate", 1000)
print(json.dumps({
    "schema": 2, "verdict": told["verdict"], "is_clean": told["verdict"] == "clean", "warnings": told.get("warnings", []),
    "host": {}, "clients": 10, "ended_unix_s": 1795683584, "delivered": {"messages": rate, "messages_per_second": rate},
    "breaches": [{"qos": 0, "delivered": rate, "lost": told.get("lost", 0), "duplicated": 0, "reordered": 0, "corrupt": 0}],
    "latency": {"deliver": {"p50_ns": 1e6, "p99_ns": 2e6, "p99.9_ns": 3e6, "max_ns": 4e6}}, "spans": [],
    "per_delivery": {"broker_us": 5.0, "own_us": 6.0, "machine_less_own_us": 7.0},
}))
sys.exit(told.get("exit_code", 0))
