"""The oracle of `torture.py`: what is owed, by what the clients did and saw, and what they got.

Not here: what the broker says of itself.
"""

import bisect
import collections

from torture_clients import GROUPS, NEVER, STREAMS, Received, qos_of, topic_of_comer

SHOWN_MAX = 20
PING_SECONDS_MAX = 1.0
# An acknowledged message has reached every shard, and who is connected, after so long; until then a SUBSCRIBE may still
# catch it and an UNSUBSCRIBE drop it.
UNDER_WAY_SECONDS = 3.0


class Oracle:
    def __init__(self, results, start):
        self.results, self.start, self.found, self.totals = results, start, collections.Counter(), collections.Counter()
        self.lines = []
        self.published = {}
        for result in results.values():
            self.published |= result.get("published", {})

    def violation(self, kind, text):
        self.found[kind] += 1
        if self.found[kind] <= SHOWN_MAX:
            self.lines.append(f"{kind}: {text}")

    def what(self, stream, sequence):
        known = self.published[stream]
        if sequence >= len(known.sent):
            return f"number {sequence} of {STREAMS[stream][2]}, which was never published"
        _, publisher, topic = STREAMS[stream]
        acked = f"acknowledged {self.time(known.acked[sequence])}" if known.acked[sequence] else "not acknowledged"
        return (f"number {sequence} of publisher-{publisher} on {topic} "
                f"(sent {self.time(known.sent[sequence])}, {known.copies[sequence]} times, {acked})")

    def time(self, at):
        return f"at {at - self.start:.3f} s"

    def streams(self, *kinds):
        return [i for i, (kind, _, _) in enumerate(STREAMS) if kind[:1] in kinds or kind in kinds]

    def check(self):
        for name, result in self.results.items():
            if name.startswith(("plain", "comer")):
                for stream in self.streams("q1", "q2"):
                    self.plain(name, result, stream)
                for stream in self.streams("q0"):
                    self.gaps(name, result, stream)
            if name.startswith(("watcher", "newcomer")):
                for stream in self.streams("r"):
                    self.retained(name, result, stream)
        for group in range(GROUPS):
            for stream in self.streams(f"s{group}"):
                self.shared(group, stream)
        for stream, known in self.published.items():
            self.totals[f"published {STREAMS[stream][0]}"] += len(known.sent)
            if qos_of(stream):
                for sequence, acked in enumerate(known.acked):
                    if not acked:
                        self.violation("not acknowledged", self.what(stream, sequence))

    def is_owed(self, result, stream, sequence):
        """Sent after a SUBACK had come, and acknowledged well before UNSUBSCRIBE was sent."""
        known = self.published[stream]
        sent, acked = known.sent[sequence], known.acked[sequence] + UNDER_WAY_SECONDS
        subscriptions = result["subscriptions"]
        return known.acked[sequence] and any(since < sent and acked < until for _, since, until, _ in subscriptions)

    def plain(self, name, result, stream):
        is_asked, qos = name.startswith("plain") or STREAMS[stream][2] == topic_of_comer(name), qos_of(stream)
        received, known = result["received"].get(stream) or Received(), self.published[stream]
        seen, last = set(), -1
        for sequence, is_dup, _, at in received.rows():
            self.totals["received plain"] += 1
            if sequence >= len(known.sent) or not is_asked:
                self.violation("not asked for", f"{name} got {self.what(stream, sequence)}")
                continue
            if sequence in seen:
                self.totals["repeated"] += 1
                if qos == 2 or not (is_dup or known.copies[sequence] > 1):
                    what = f"{name} got again {self.time(at)} {self.what(stream, sequence)}"
                    self.violation(f"QoS {qos} doubled", what)
            else:
                seen.add(sequence)
                if sequence < last:
                    what = f"{name} got {self.time(at)}, after {last}, {self.what(stream, sequence)}"
                    self.violation(f"QoS {qos} out of order", what)
                last = max(last, sequence)
        if not is_asked:
            return
        for sequence in range(len(known.sent)):
            if sequence not in seen and self.is_owed(result, stream, sequence):
                around = self.times(result, known.sent[sequence])
                what = f"{name} never got {self.what(stream, sequence)}; subscribed {around}"
                self.violation(f"QoS {qos} lost", what)
        self.unasked(name, result, stream, seen)

    def times(self, result, at):
        """The subscriptions around a time."""
        near = [sub for sub in result["subscriptions"] if sub[1] - 5 < at < sub[2] + 5]
        return ", ".join(f"{since - self.start:.3f} s to {until - self.start:.3f} s" for _, since, until, _ in near)

    def unasked(self, name, result, stream, seen):
        """What was sent after UNSUBACK and acknowledged well before the next SUBSCRIBE was sent is not for it."""
        known, subscriptions = self.published[stream], result["subscriptions"]
        for before, after in zip(subscriptions, [*subscriptions[1:], [NEVER] * 4]):
            begin = bisect.bisect_right(known.sent, before[3])
            for sequence in range(begin, len(known.sent)):
                if known.sent[sequence] >= after[0]:
                    break
                if sequence in seen and 0 < known.acked[sequence] < after[0] - UNDER_WAY_SECONDS:
                    what = f"{name}, who had left {self.time(before[3])}, got {self.what(stream, sequence)}"
                    self.violation("not asked for", what)

    def gaps(self, name, result, stream):
        """On one connection, nothing is left out of what was handled, sent after CONNACK, before the last that came."""
        received, known = result["received"].get(stream) or Received(), self.published[stream]
        by_connection = collections.defaultdict(list)
        for sequence, _, connection, _ in received.rows():
            by_connection[connection].append(sequence)
            self.totals["received QoS 0"] += 1
        for connection, sequences in by_connection.items():
            for before, after in zip(sequences, sequences[1:]):
                if after <= before:
                    what = f"{name}, connection {connection}, got after {before} {self.what(stream, after)}"
                    self.violation("QoS 0 out of order", what)
        is_comer = name.startswith("comer")
        if is_comer and STREAMS[stream][2] != topic_of_comer(name):
            return
        for connection, (_, connack, end) in enumerate(result["connections"]):
            if not connack:
                continue
            got = by_connection.get(connection, [])
            # A connection that stands at the end gets everything; one that was cut what came before its last.
            last = len(known.sent) if end == NEVER else (got[-1] if got else -1)
            via = known.connection[last] if last < len(known.sent) and last >= 0 else None
            having = set(got)
            for sequence in range(bisect.bisect_right(known.sent, connack), last):
                is_handled = known.acked[sequence] or known.connection[sequence] == via
                if sequence in having or not is_handled:
                    continue
                if is_comer and not self.is_owed(result, stream, sequence):
                    continue
                if known.sent[sequence] > min(sub[1] for sub in result["subscriptions"]):
                    who = f"{name}, connection {connection} since {self.time(connack)}"
                    self.violation("QoS 0 lost", f"{who}, never got {self.what(stream, sequence)}")

    def shared(self, group, stream):
        known, receipts = self.published[stream], collections.defaultdict(list)
        for name, result in self.results.items():
            received = name.startswith("member-") and result["received"].get(stream)
            if not received:
                continue
            if not name.startswith(f"member-{group}-"):
                self.violation("not asked for", f"{name} got something of {STREAMS[stream][2]}")
            for sequence, is_dup, connection, at in received.rows():
                receipts[sequence].append((at, name, is_dup, result["connections"][connection][2]))
                self.totals["received shared"] += 1
        for sequence, acked in enumerate(known.acked):
            if acked and sequence not in receipts:
                self.violation("shared lost", f"no member of g{group} got {self.what(stream, sequence)}")
        for sequence, all_of_it in receipts.items():
            if len(all_of_it) < 2:
                continue
            self.totals["repeated"] += len(all_of_it) - 1
            all_of_it.sort()
            for (first_at, first, _, ended), (at, name, is_dup, _) in zip(all_of_it, all_of_it[1:]):
                if not is_dup and known.copies[sequence] < 2 and ended > at:
                    times = f"{self.time(at)}, after {first} {self.time(first_at)}"
                    self.violation("shared doubled", f"{name} got {times}, {self.what(stream, sequence)}")

    def retained(self, name, result, stream):
        received, known = result["received"].get(stream) or Received(), self.published[stream]
        highest, connection_before = -1, None
        for (sequence, is_dup, connection, at), is_live in zip(received.rows(), received.is_live):
            self.totals["received retained"] += 1
            if name.startswith("newcomer") and connection != connection_before:
                # Nothing of what it had before counts; but what was acknowledged before it asked does.
                highest, connection_before = -1, connection
                asked = result["starts"][connection] if connection < len(result["starts"]) else 0
                newest = self.acknowledged_before(known, asked)
                # Live copies that are under way to others of its filter may come first, in order.
                if sequence < newest and is_live:
                    self.totals["older live copies before retained"] += 1
                elif sequence < newest:
                    what = f"began with {self.what(stream, sequence)}, though {newest} was acknowledged before"
                    self.violation("retained stale", f"{name}, who subscribed {self.time(asked)}, {what}")
            if sequence < highest and not is_dup:
                what = f"got {self.time(at)}, after {highest}, {self.what(stream, sequence)}"
                self.violation("retained went back", f"{name}, connection {connection}, {what}")
            highest = max(highest, sequence)
        last_acked = self.last_acknowledged(stream)
        last_got = received.sequence[-1] if len(received.sequence) else -1
        if last_got < last_acked:
            self.violation("retained stale", f"{name} has {last_got} at last, not {self.what(stream, last_acked)}")

    def last_acknowledged(self, stream):
        return max((sequence for sequence, acked in enumerate(self.published[stream].acked) if acked), default=-1)

    @staticmethod
    def acknowledged_before(known, at):
        """One is under way at a time: acknowledgements are in order."""
        newest = bisect.bisect_right(known.sent, at) - 1
        while newest >= 0 and not 0 < known.acked[newest] < at:
            newest -= 1
        return newest

    def pings(self, pings, sampler):
        worst = []
        for count, slow in pings:
            self.totals["pings"] += count
            for wait, sent, own, name, what in slow:
                stopped, waited = sampler.stopped(sent, sent + wait), sampler.waited(sent, sent + wait)
                rest = wait - stopped - waited - own
                worst.append((wait, stopped, waited, own, name, sent))
                if rest > PING_SECONDS_MAX:
                    self.violation("late PINGRESP", f"{name} {what or 'had it'} {explained(worst[-1], self.start)}")
        return max(worst, default=None)


def explained(ping, start):
    wait, stopped, waited, own, _, sent = ping
    return (f"after {wait:.2f} s, since {sent - start:.3f} s: the broker was stopped for {stopped:.2f} s and waited "
            f"for a CPU for {waited:.2f} s, the client was late by {own:.2f} s")
