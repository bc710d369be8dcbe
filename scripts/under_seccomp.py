#!/usr/bin/env python3
"""Becomes a program under a container's seccomp profile, without a container.

    scripts/under_seccomp.py scripts/seccomp.json target/release/ringmq ...
    scripts/under_seccomp.py --deny io_uring_setup [--errno 38] scripts/seccomp.json PROGRAM ...

--deny takes system calls out of the profile, as profiles are that know no io_uring; --errno is what is answered
then. It loads the profile by libseccomp, as container runtimes do.
"""

import argparse
import ctypes
import json
import os
import sys

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5,
               "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def action(name, errno):
    return ALLOW if name == "SCMP_ACT_ALLOW" else ERRNO | errno


def check(answer, what):
    if answer < 0:
        sys.exit(f"{what}: {os.strerror(-answer)}")


def load(profile, denied, errno):
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    default = action(profile["defaultAction"], errno)
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    for rule in profile["syscalls"]:
        comparisons = [
            Comparison(arg["index"], COMPARISONS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args", [])
        ]
        array = (Comparison * len(comparisons))(*comparisons)
        what = action(rule["action"], rule.get("errnoRet", errno))
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Less than nothing: not one of this machine's kind.
            if name in denied or number < 0 or what == default:
                continue
            added = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(what), ctypes.c_int(number), ctypes.c_uint(len(comparisons)), array)
            check(added, name)
    check(library.seccomp_load(context), "seccomp_load")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deny", action="append", default=[], metavar="SYSCALL")
    parser.add_argument("--errno", type=int, default=1)
    parser.add_argument("profile")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    with open(args.profile, encoding="utf-8") as file:
        profile = json.load(file)
    load(profile, set(args.deny), args.errno)
    os.execvp(args.program[0], args.program)


if __name__ == "__main__":
    main()
