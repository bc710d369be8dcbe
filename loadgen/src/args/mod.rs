//! The command line, as typed. What it means for clients and topics is in [`crate::plan`].

mod options;
mod value;

pub use options::{Connection, Load, Output, Search, Wildcard};
pub use value::{Slo, duration, share};

use crate::plan::preset::Preset;
use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Load generator for MQTT brokers: verified deliveries, latency from the intended send time.
///
/// Exit codes: 0 clean, or no more lost than --allow-loss; 1 the run could not be made or did not come to
/// its end (no broker, refused, lost connections, stalled, interrupted); 2 wrong arguments; 3 messages were
/// lost beyond --allow-loss, or doubled, reordered or damaged against their QoS; 4 the objective was
/// missed, or no rate holds it; 5 the generator or the machine was the limit: the numbers are not the
/// broker's.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The workloads, and what is done with their results.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Few publishers, many subscribers, everybody gets everything
    Fanout(Fanout),
    /// Many publishers, few subscribers that get everything
    Fanin(Fanin),
    /// Pairs of one publisher and one subscriber
    P2p(P2p),
    /// Many publishers, subscribers that share the messages
    Shared(Shared),
    /// Connections: how fast they come in, and what they cost while held
    Connect(Connect),
    /// Replay of retained messages to new subscribers
    Retained(Retained),
    /// All clients drop and come back at once, under load
    Storm(Storm),
    /// Fan-out where some subscribers stall or read slowly; the others are measured
    Slow(Slow),
    /// Sessions that stay: subscribers leave, messages are published, they come back and get all of them
    Offline(Offline),
    /// The same, with a command in the middle that restarts the broker: what survives is counted
    Restart(Restart),
    /// A day of telemetry: sensors that now and then come back, dashboards with wildcards, some of them slow
    Telemetry(Telemetry),
    /// Client groups, topics, rates and sizes from a TOML file
    Mixed(Mixed),
    /// A workload of the Open MQTT Benchmark Suite by its name
    Preset(PresetRun),
    /// The floor under a fan-out or fan-in: relays bytes by io_uring alone; to be measured like a broker
    Floor(Floor),
    /// Makes its part of a load that another loadgen asks for by --workers
    Worker(Worker),
    /// What a message costs this generator on this machine, and the highest rate that it can judge
    Calibrate(Calibrate),
    /// Renders results (`--json`) as one HTML page or as SVG
    Report(Report),
}

/// Options that every workload has.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Parser)]
pub struct Fanout {
    /// Publishers, each with topics of its own
    #[arg(long, default_value_t = 1, value_parser = clients())]
    pub publishers: u32,
    /// Subscribers; each gets what all publishers send
    #[arg(long, default_value_t = 1000, value_parser = clients())]
    pub subscribers: u32,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub common: Common,
}

/// No load: a server whose fan-out costs what the kernel takes, and nothing else.
#[derive(Clone, Debug, Parser)]
pub struct Floor {
    /// Address to listen on; port 0 picks one, which is printed
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// How the bytes are handed to the kernel
    #[arg(long, value_enum, default_value = "plain")]
    pub way: FloorWay,
    /// The floor under a fan-in: what came from any publisher goes out in one send to each subscriber
    #[arg(long, conflicts_with = "way")]
    pub fan_in: bool,
}

/// Makes loads that another loadgen asks for.
#[derive(Clone, Debug, Parser)]
pub struct Worker {
    /// Address to listen on; port 0 picks one, which is printed. Whoever reaches it can make it load any
    /// broker: keep it in a network of your own
    #[arg(long, default_value = "127.0.0.1:7883", value_name = "HOST:PORT")]
    pub listen: SocketAddr,
}

/// What the generator itself costs, measured against the floor.
#[derive(Clone, Debug, Parser)]
pub struct Calibrate {
    /// Subscribers of the fan-out
    #[arg(long, default_value_t = 100, value_parser = clients())]
    pub subscribers: u32,
    /// Payload bytes
    #[arg(long, default_value = "64")]
    pub size: String,
    /// How long each trial publishes
    #[arg(long, default_value = "2s", value_name = "TIME")]
    pub trial: String,
    /// Threads; as many as CPUs this process may use unless given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print the result as JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Ways of [`ringmq::shard::ring::floor`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FloorWay {
    /// One send per subscriber, as the broker does it
    Plain,
    /// Sockets registered with the ring
    FixedFiles,
    /// SEND_ZC
    ZeroCopy,
    /// DEFER_TASKRUN
    Deferred,
}

#[derive(Clone, Debug, Parser)]
pub struct Fanin {
    /// Publishers, each with topics of its own
    #[arg(long, default_value_t = 200, value_parser = clients())]
    pub publishers: u32,
    /// Subscribers; each gets what all publishers send
    #[arg(long, default_value_t = 1, value_parser = clients())]
    pub subscribers: u32,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct P2p {
    /// Pairs of publisher and subscriber
    #[arg(long, default_value_t = 200, value_parser = clients())]
    pub pairs: u32,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Shared {
    /// Publishers, each with topics of its own
    #[arg(long, default_value_t = 200, value_parser = clients())]
    pub publishers: u32,
    /// Subscribers over all groups
    #[arg(long, default_value_t = 10, value_parser = clients())]
    pub subscribers: u32,
    /// Shared groups; each gets every message once
    #[arg(long, default_value_t = 1, value_parser = clients())]
    pub groups: u32,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Connect {
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clients())]
    pub clients: u32,
    /// Each subscribes to a topic of its own
    #[arg(long)]
    pub subscribe: bool,
    /// Stay connected for so long
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub hold: Duration,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Retained {
    /// Retained topics
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub topics: u32,
    /// Subscribers that ask for all of them
    #[arg(long, default_value_t = 10, value_parser = clients())]
    pub subscribers: u32,
    /// Payload bytes: N, LOW-HIGH, or SIZE:WEIGHT,SIZE:WEIGHT...
    #[arg(long, default_value = "64")]
    pub size: crate::plan::size::Sizes,
    /// QoS of the subscriptions; the messages are published with QoS 1
    #[arg(long, default_value_t = 0, value_parser = qos())]
    pub qos: u8,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Storm {
    /// Clients that drop and come back
    #[arg(long, default_value_t = 1000, value_parser = clients())]
    pub clients: u32,
    /// Pairs of publisher and subscriber that stay, and whose latency is measured
    #[arg(long, default_value_t = 100, value_parser = clients())]
    pub pairs: u32,
    /// Load before the storm
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub after: Duration,
    /// Load when everybody is back
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub settle: Duration,
    /// The dropped clients have sessions that stay
    #[arg(long)]
    pub persistent: bool,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Slow {
    /// Subscribers in all
    #[arg(long, default_value_t = 1000, value_parser = clients())]
    pub subscribers: u32,
    /// Of these, so many are slow
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub slow: u32,
    /// Bytes per second that a slow one reads; 0: it does not read at all
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub slow_rate: u32,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Offline {
    /// Subscribers, each with a session that stays; each gets what all publishers send
    #[arg(long, default_value_t = 10, value_parser = clients())]
    pub subscribers: u32,
    /// Publishers, each with a topic of its own
    #[arg(long, default_value_t = 1, value_parser = clients())]
    pub publishers: u32,
    /// Messages of each publisher while the subscribers are away
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub messages: u32,
    /// Messages per publisher that wait for their acknowledgement
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub window: u32,
    /// Payload bytes: N, LOW-HIGH, or SIZE:WEIGHT,SIZE:WEIGHT...
    #[arg(long, default_value = "64")]
    pub size: crate::plan::size::Sizes,
    /// QoS of publishes and subscriptions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub qos: u8,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Restart {
    /// What a shell runs when everything is published and acknowledged; it returns when the broker is back,
    /// or on its way
    #[arg(long)]
    pub command: String,
    #[command(flatten)]
    pub offline: Offline,
}

#[derive(Clone, Debug, Parser)]
pub struct Telemetry {
    /// Sensors, each with a topic of its own below its site
    #[arg(long, default_value_t = 10_000, value_parser = clients())]
    pub sensors: u32,
    /// Each sensor publishes once in so long
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration)]
    pub interval: Duration,
    /// Sites, over which the sensors are spread
    #[arg(long, default_value_t = 50, value_parser = clients())]
    pub sites: u32,
    /// Dashboards; each gets all of one site by a wildcard
    #[arg(long, default_value_t = 50, value_parser = clients())]
    pub dashboards: u32,
    /// Of these, so many are slow; the others are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub slow: u32,
    /// Bytes per second that a slow one reads; 0: it does not read at all
    #[arg(long, default_value_t = 2000, value_name = "BYTES")]
    pub slow_rate: u32,
    /// Sensors that say goodbye and come back, per second
    #[arg(long, default_value = "1%", value_name = "SHARE", value_parser = share)]
    pub reconnects: f64,
    /// QoS of publishes and subscriptions
    #[arg(long, default_value_t = 1, value_parser = qos())]
    pub qos: u8,
    /// Payload bytes: N, LOW-HIGH, or SIZE:WEIGHT,SIZE:WEIGHT...
    #[arg(long, default_value = "64")]
    pub size: crate::plan::size::Sizes,
    /// How long to publish, warm-up included
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    pub duration: Duration,
    /// Left out of the measurement at the start
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
    pub warmup: Duration,
    /// Deliveries at QoS 0 that may be lost
    #[arg(long, default_value = "0%", value_name = "SHARE", value_parser = share)]
    pub allow_loss: f64,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Mixed {
    /// The file; its keys are listed in perf/README.md
    pub file: PathBuf,
    /// Instead of the file's `duration`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct PresetRun {
    /// Which workload
    pub name: Preset,
    /// How long to publish, or to hold connections
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub duration: Duration,
    /// Left out of the measurement at the start
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
    pub warmup: Duration,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Parser)]
pub struct Report {
    /// Results; several of one scenario are compared, labelled by their file names
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Self-contained page to write
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Folder for one SVG per plot
    #[arg(long, value_name = "FOLDER")]
    pub svg: Option<PathBuf>,
    /// Title of the page
    #[arg(long, default_value = "MQTT broker load", requires = "html")]
    pub title: String,
}

fn clients() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

fn qos() -> impl clap::builder::TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(0..=2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn impossible_values_are_refused() {
        let parse = |args: &[&str]| Args::try_parse_from([&["loadgen", "fanout"], args].concat());
        assert!(parse(&[]).is_ok());
        for args in [
            &["--size", "15"][..],
            &["--qos", "3"],
            &["--protocol", "3"],
            &["--window", "0"],
            &["--window", "2", "--rate", "5"],
            &["--patience", "0"],
            &["--messages", "5", "--duration", "5s"],
            &["--find-max"],
            &["--find-max", "--slo", "p42=1ms"],
            &["--find-max", "--slo=p99=1ms", "--duration=5s"],
            &["--find-max", "--slo=p99=1ms", "--warmup=1s"],
            &["--find-max", "--slo=p99=1ms", "--hlog=x"],
            &["--from=5"],
            &["--trial=5s"],
            &["--password=x"],
            &["--allow-loss=5"],
            &["--cert", "x"],
            &["--source", "nowhere"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
