#!/usr/bin/env python3
"""Does everything arrive that is owed, while clients die and come back, and the broker hardly gets a CPU?

    scripts/torture.py --seconds 1800 --shards 4 --hogs 2
    scripts/torture.py --seconds 60 --seed 7 --broker target/release/ringmq

Beside busy loops of a higher priority, a broker serves publishers of QoS 0, 1 and 2 and of retained values, persistent
plain subscribers, share groups, subscribers that come and go, and new ones that ask for retained values. Clients are
reset, take over their own session, leave and come back, subscribe again; the broker is stopped and continued. Half of
them speak 3.1.1, half 5.0. At the end all come back, the hogs stop, everything is drained, and an oracle that knows
only what clients did and saw checks:

- QoS 1 and 2 to a plain subscription: each acknowledged message came, first copies in the publisher's order; QoS 2 came
  once; QoS 1 came again only with DUP or if its publisher had sent it again.
- QoS 0: no gap while publisher's and subscriber's connection stand.
- Share group: each acknowledged message came; again only with DUP, after the end of the connection that had it, or if
  it was published again.
- Retained: a new subscription is sent no retained value older than what was acknowledged before it, no value goes
  back, and the last acknowledged value is the last that old and new subscribers have.
- A PINGRESP takes a second at most beyond what the hogs, SIGSTOP and the client's own process explain.
- A session is there when its client comes back, and a connection that was taken over is closed.

Exit code 1 and a line for each violation, or 0 and one line of totals. Decisions follow from the seed, their times do
not.
"""

import argparse
import bisect
import multiprocessing
import os
import random
import signal
import struct
import sys
import threading
import time

import wire
from torture_clients import GROUPS, NEVER, PUBLISHERS, Comer, Loop, Newcomer, Publisher, Subscriber, topic_of_comer
from torture_oracle import SHOWN_MAX, Oracle, explained
from wire import Broker, Client

CONFIG = """
[limits]
queue_messages_max = 100000000
queue_bytes_max = 17179869184
outbox_bytes_max = 2147483648
"""
PLAIN, MEMBERS, COMERS, WATCHERS = 6, 5, 6, 3


def clients(port, orders, seed, make):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop = Loop(port, orders, seed)
    make(loop)
    loop.run()


def casts(plant):
    """What each process of clients plays."""
    of = {"lose": ("lose", "q1"), "double": ("double", "q2"), "swap": ("swap", "q1"), "gap": ("lose", "q0"),
          "lose-shared": ("lose", "s0"), "double-shared": ("double", "s0"), "back": ("back", "r")}.get(plant)
    for_plain = of if of and of[1][0] == "q" else None
    for_shared = of if of and of[1][0] == "s" else None
    for_retained = of if of and of[1] == "r" else None

    def publishers(numbers):
        return lambda loop: [Publisher(loop, number) for number in numbers]

    def plain(loop):
        for i in range(PLAIN):
            Subscriber(loop, f"plain-{i}", i, ["q0/+", "q1/+", "q2/#"], 2, plant=for_plain if i == 0 else None)

    def shared(loop):
        for group in range(GROUPS):
            for i in range(MEMBERS):
                # The last ones have no session to come back to: what they had goes to others.
                name, clean = f"member-{group}-{i}", i >= MEMBERS - 2
                planted = for_shared if (group, i) == (0, 0) else None
                Subscriber(loop, name, i, [f"$share/g{group}/s{group}/+"], 1, clean, planted)

    def others(loop):
        for i in range(COMERS):
            Comer(loop, f"comer-{i}", i, [topic_of_comer(f"comer-{i}")], i % 3)
        for i in range(WATCHERS):
            Subscriber(loop, f"watcher-{i}", i, ["r/+/+"], 1, plant=for_retained if i == 0 else None)
            Newcomer(loop, f"newcomer-{i}", i, ["r/#"], i % 2, clean=True)

    return [publishers(range(0, PUBLISHERS, 2)), publishers(range(1, PUBLISHERS, 2)), plain, shared, others]


def hog(seed, nice):
    wire.be_nice(nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pick = random.Random(seed)
    while True:
        end = time.monotonic() + pick.choice((0.05, 0.15, 0.3, 0.6))
        while time.monotonic() < end:
            pass
        time.sleep(pick.choice((0.001, 0.01, 0.05)))


class Sampler(threading.Thread):
    """How long the broker's threads have waited for a CPU, and when it was stopped."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.at, self.waits, self.stops, self.is_over = broker, [], [], [], False

    def sample(self):
        try:
            waits = {thread: wait for thread, (_, wait) in self.broker.schedule().items()}
        except OSError:
            return
        self.at.append(time.monotonic())
        self.waits.append(waits)

    def run(self):
        while not self.is_over:
            self.sample()
            time.sleep(0.1)

    def waited(self, begin, end):
        """Seconds that the thread which waited most was ready to run without a CPU."""
        first = self.waits[max(0, bisect.bisect_left(self.at, begin) - 1)]
        at = min(len(self.at) - 1, bisect.bisect_right(self.at, end))
        last = self.waits[at]
        waits = ((last[thread] - first.get(thread, 0)) / 1e9 + self.ended_later(thread, at, end) for thread in last)
        return min(max(waits, default=0), end - begin)

    def ended_later(self, thread, at, end):
        """Seconds before `end` of a wait that the kernel counts only when the thread runs again."""
        before = self.waits[at][thread]
        for later, waits in zip(self.at[at + 1:at + 100], self.waits[at + 1:at + 100], strict=True):
            more = (waits.get(thread, before) - before) / 1e9
            if more > 0:
                return max(0, min(more, end - (later - more)))
        return 0

    def stopped(self, begin, end):
        return sum(max(0, min(end, until) - max(begin, since)) for since, until in self.stops)


def last_values(oracle, port):
    """A new subscriber at the end has the last acknowledged value of each retained topic."""
    client, values = Client(port).open("last"), {}
    client.send(wire.subscribe(1, ["r/#"], 1))
    wanted = {stream: oracle.last_acknowledged(stream) for stream in oracle.streams("r")}
    client.socket.settimeout(3)
    try:
        while sum(value >= 0 for value in wanted.values()) > len(values):
            _, payload, _, _ = wire.open_publish(0x32, client.read_kind(wire.PUBLISH))
            stream, sequence = struct.unpack(">HI", payload[:6])
            values[stream] = sequence
    except TimeoutError:
        pass
    for stream, last in wanted.items():
        if values.get(stream, -1) != last:
            has = values.get(stream, "nothing")
            oracle.violation("retained stale", f"the last to come has {has}, not {oracle.what(stream, last)}")
    client.close()


def await_all(pipes, what, seconds):
    end = time.monotonic() + seconds
    for pipe in pipes:
        if not pipe.poll(max(0, end - time.monotonic())):
            return f"clients are not {what} after {seconds} s"
        pipe.recv()
    return None


def drain(broker, pipes):
    """Everybody comes back, all is acknowledged; what goes on is said, if it does not end."""
    for pipe in pipes:
        pipe.send("calm")
    problem = await_all(pipes, "back with everything acknowledged", 120)
    end = time.monotonic() + 60
    while not problem:
        counters = broker.counters()
        if not counters["queued_messages"] and not counters["inflight_messages"]:
            break
        if time.monotonic() > end:
            problem = f"{counters['queued_messages']} messages stay queued, {counters['inflight_messages']} in flight"
        time.sleep(0.3)
    for pipe in pipes:
        while pipe.poll(0):
            pipe.recv()
    time.sleep(0.5)
    for pipe in pipes:
        pipe.send("ping")
    return problem or await_all(pipes, "answered", 60)


def torture(broker, options, sampler, pipes):
    """Chaos for the time that was asked for."""
    pick, end = random.Random(options.seed), time.monotonic() + options.seconds
    next_stop = time.monotonic() + pick.uniform(2, 15)
    while time.monotonic() < end and broker.is_alive():
        time.sleep(0.05)
        if time.monotonic() >= next_stop:
            since = time.monotonic()
            broker.signal(signal.SIGSTOP)
            time.sleep(pick.choice((0.01, 0.1, 0.5, 2)) * pick.random())
            broker.signal(signal.SIGCONT)
            sampler.stops.append((since, time.monotonic()))
            next_stop = time.monotonic() + pick.uniform(2, 15)


def judge(oracle, options, broker, sampler, told, problem):
    if problem:
        oracle.violation("does not drain", problem)
    for complaint in (text for _, complaints, _ in told for text in complaints):
        oracle.violation("client", complaint)
    oracle.check()
    worst = oracle.pings([pings for _, _, pings in told], sampler)
    last_values(oracle, broker.port)
    counters = broker.counters()
    for name, value in counters.items():
        # QoS 0 for who is away is dropped by design.
        is_loss = name.startswith("dropped_") and name != "dropped_client_absent"
        if value and (is_loss or name in ("protocol_errors", "shards_silent")):
            oracle.violation("counter", f"{name}={value}")
    for line in oracle.lines:
        print(line)
    for kind, count in oracle.found.items():
        if count > SHOWN_MAX:
            print(f"{kind}: {count} in all")
    if worst:
        print(f"worst PINGRESP: {worst[4]} {explained(worst, oracle.start)}")
    totals = ", ".join(f"{name} {count:,}" for name, count in sorted(oracle.totals.items()))
    parts = [
        f"seed {options.seed}, {options.seconds} s, {options.shards} shards, {options.hogs} hogs",
        *(f"{name} {count:,}" for name, count in sorted(oracle.totals.items())),
        f"connections {counters['connections_accepted']:,}, takeovers {counters['takeovers']:,}",
        f"stops {len(sampler.stops)}",
        f"longest turn {broker.turn_us_max / 1000:.1f} ms, {sampler.waited(0, NEVER):.1f} s without a CPU",
    ]
    print(f"{'VIOLATED' if oracle.found else 'clean'}: {', '.join(parts)}")
    return not oracle.found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--hogs", type=int, default=2)
    parser.add_argument("--hog-nice", type=int, default=-5)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--plant", help=argparse.SUPPRESS)
    wire.broker_option(parser)
    options = parser.parse_args()
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {options.seed}", flush=True)
    wire.raise_open_files()
    with Broker(os.path.abspath(options.broker), options.shards, CONFIG) as broker:
        pipes, processes = [], []
        for make in casts(options.plant):
            ours, theirs = multiprocessing.Pipe()
            arguments = (broker.port, theirs, options.seed, make)
            processes.append(multiprocessing.Process(target=clients, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        seeds = [f"{options.seed}/{i}" for i in range(options.hogs)]
        hogs = [multiprocessing.Process(target=hog, args=(seed, options.hog_nice), daemon=True) for seed in seeds]
        sampler = Sampler(broker)
        try:
            if problem := await_all(pipes, "there", 60):
                sys.exit(problem)
            sampler.start()
            for process in hogs:
                process.start()
            start = time.monotonic()
            for pipe in pipes:
                pipe.send("go")
            torture(broker, options, sampler, pipes)
            for process in hogs:
                process.kill()
            if not broker.is_alive():
                sys.exit(f"VIOLATED: seed {options.seed}: the broker has ended: {broker.log()[-3000:]}")
            problem = drain(broker, pipes)
            sampler.is_over = True
            sampler.sample()
            for pipe in pipes:
                while pipe.poll(0):
                    pipe.recv()
                pipe.send("finish")
            told = [pipe.recv() for pipe in pipes]
            results = {name: result for by_name, _, _ in told for name, result in by_name.items()}
            is_clean = judge(Oracle(results, start), options, broker, sampler, told, problem)
        finally:
            for process in [*processes, *hogs]:
                if process.pid:
                    process.kill()
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
