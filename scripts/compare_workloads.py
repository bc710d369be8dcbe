"""What `compare.py` measures: loadgen's arguments by name, and the goals.

Numbers are of the deliveries of all clients. `{twice}` is twice the rate that the broker reached in the workload's closed loop, measured
right before on a broker started anew.
"""

import dataclasses

FANOUT = "fanout --subscribers=1000"


@dataclasses.dataclass(frozen=True)
class Workload:
    """A run of loadgen and what it needs of the broker."""

    words: str
    # Measured in the first round only, unless --workloads names it.
    is_long: bool = False
    # tcp, tls or websocket.
    transport: str = "tcp"
    # Runs on --wide-cpus instead of --broker-cpus.
    is_wide: bool = False
    # The folder to take the configuration from, instead of each of --configurations.
    configuration: str = ""
    # The closed loop that says what `{twice}` is.
    closed: str = ""

    @property
    def qos(self):
        """The highest QoS that it uses."""
        named = [int(word.split("=")[1]) for word in self.words.split() if word.startswith("--qos=")]
        return max(named, default=1 if self.words.startswith(("preset", "offline", "retained", "telemetry")) else 0)

    def shown(self):
        """For people: what is run, and what is particular about it."""
        parts = [f"`loadgen {self.words}`"]
        if self.transport != "tcp":
            parts.append(f"over {self.transport}")
        if self.is_wide:
            parts.append("the broker on --wide-cpus")
        if self.closed:
            parts.append(f"twice the rate of `loadgen {self.closed}`")
        if self.configuration:
            parts.append(f"configuration `{self.configuration}`")
        return ", ".join(parts)


WORKLOADS = {
    "fanout-w1": Workload(f"{FANOUT} --window=1"),
    "fanout-w16": Workload(f"{FANOUT} --window=16"),
    "fanout-16k-w4": Workload(f"{FANOUT} --window=4 --size=16384"),
    "fanout-qos1-w4": Workload(f"{FANOUT} --window=4 --qos=1"),
    "fanout-open-40k": Workload("fanout --subscribers=100 --rate=400"),
    "pairs-w1": Workload("p2p --pairs=200 --window=1"),
    "pairs-w10": Workload("p2p --pairs=200 --window=10"),
    "pairs-qos1-w8": Workload("p2p --pairs=100 --window=8 --qos=1"),
    "pairs-qos2-w8": Workload("p2p --pairs=100 --window=8 --qos=2"),
    "fanin-w1": Workload("fanin --publishers=200 --window=1"),
    "fanin-w10": Workload("fanin --publishers=200 --window=10"),
    "fanin-w10-each": Workload("fanin --publishers=200 --window=10 --write-each"),
    "shared-qos1-w4": Workload("shared --publishers=100 --subscribers=10 --window=4 --qos=1"),
    # As from clients that have nothing to do with each other: loadgen's batches make it easier for a broker.
    "shared-qos1-w4-each": Workload("shared --publishers=100 --subscribers=10 --window=4 --qos=1 --write-each"),
    "retained-10k": Workload("retained --topics=10000 --subscribers=10"),
    "connect-5k": Workload("connect --clients=5000 --hold=2s"),
    "connect-19k": Workload("connect --clients=19000 --hold=2s"),
    "storm-2k": Workload("storm --clients=2000 --pairs=50 --rate=1000 --after=2s --settle=2s"),
    "slow-5-of-200": Workload("slow --subscribers=200 --slow=5 --rate=100 --size=1024"),
    "tls-fanout-w1": Workload(f"{FANOUT} --window=1", transport="tls"),
    "tls-fanout-w16": Workload(f"{FANOUT} --window=16", transport="tls"),
    "ws-fanout-w1": Workload(f"{FANOUT} --window=1", transport="websocket"),
    "ws-fanout-w16": Workload(f"{FANOUT} --window=16", transport="websocket"),
    "wide-fanout-w16": Workload(f"{FANOUT} --window=16", is_wide=True),
    "wide-pairs-w10": Workload("p2p --pairs=200 --window=10", is_wide=True),
    # 10,000 sensors at 1 Hz, QoS 1; 50 dashboards with wildcards, 5 of them slow; 1 % of the sensors reconnect each second.
    "telemetry-day": Workload("telemetry"),
    "overload-qos0": Workload("p2p --pairs=100 --rate={twice} --allow-loss=100%", closed="p2p --pairs=100 --window=8"),
    "overload-qos1": Workload("p2p --pairs=100 --rate={twice} --qos=1", closed="p2p --pairs=100 --window=8 --qos=1"),
    "durable-qos1": Workload("offline --subscribers=10 --publishers=10 --messages=1000 --qos=1", configuration="durable"),
    "fanout-1-1K-1-1K": Workload("preset fanout-1-1K-1-1K"),
    "fanout-5-1000-5-250K": Workload("preset fanout-5-1000-5-250K"),
    "p2p-1K-1K-1K-1K": Workload("preset p2p-1K-1K-1K-1K"),
    "sharedsub-1K-5-1K-1K": Workload("preset sharedsub-1K-5-1K-1K"),
    "conn-tcp-10K-100": Workload("preset conn-tcp-10K-100", is_long=True),
    "max-fanout-100": Workload("fanout --subscribers=100 --find-max --slo=p99=10ms --from=200 --trial=3s", is_long=True),
}

# Loadgen's scenarios that take no --duration, or say it themselves.
NO_DURATION = {"retained", "connect", "storm", "offline", "restart"}

# What RingMQ is to reach, as ratios to another broker in the same run: at most, or at least where negative.
WHOLE_COST = "machine less loadgen us"
GOALS = [
    ("fanout-w1", WHOLE_COST, "floor-default", 1.05),
    ("fanout-w1", WHOLE_COST, "mosquitto-tuned", 0.42),
    ("fanout-w16", WHOLE_COST, "mosquitto-tuned", 0.045),
    ("fanout-16k-w4", WHOLE_COST, "mosquitto-tuned", 0.35),
    ("pairs-w1", WHOLE_COST, "mosquitto-tuned", 0.55),
    ("pairs-w10", WHOLE_COST, "mosquitto-tuned", 0.07),
    ("pairs-qos1-w8", WHOLE_COST, "mosquitto-tuned", 0.12),
    ("pairs-qos2-w8", WHOLE_COST, "mosquitto-tuned", 0.07),
    ("fanin-w1", WHOLE_COST, "mosquitto-tuned", 0.37),
    ("fanin-w10-each", WHOLE_COST, "mosquitto-tuned", 0.40),
    ("fanout-qos1-w4", WHOLE_COST, "mosquitto-tuned", 0.23),
    ("shared-qos1-w4", WHOLE_COST, "mosquitto-tuned", 0.22),
    ("shared-qos1-w4-each", WHOLE_COST, "mosquitto-tuned", 0.22),
    ("fanout-open-40k", "p99 ms", "mosquitto-tuned", 0.5),
    ("fanout-open-40k", "p99.9 ms", "mosquitto-tuned", 0.5),
    ("connect-19k", "rate /s", "mosquitto-tuned", -1.5),
    ("connect-19k", WHOLE_COST, "mosquitto-tuned", 0.6),
]
