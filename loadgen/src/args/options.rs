//! Groups of options that several workloads have.

use super::value::{Slo, addresses, duration, rate, share};
use crate::measure::host::Broker;
use crate::plan::size::Sizes;
use crate::plan::{Finish, Pace};
use crate::transport::TlsOptions;
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a password may stand in the environment.
const PASSWORD: &str = "LOADGEN_PASSWORD";

/// How clients reach the broker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Broker: HOST:PORT, mqtt://USER@HOST, mqtts://HOST, ws://HOST/PATH, wss://HOST/PATH, unix:///PATH
    #[arg(
        long,
        default_value = "127.0.0.1:1883",
        value_name = "URL",
        env = "LOADGEN_BROKER",
        hide_env_values = true
    )]
    pub broker: String,
    /// Protocol version: 4 is 3.1.1, 5 is 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub protocol: u8,
    /// User name
    #[arg(long, env = "LOADGEN_USER", hide_env_values = true)]
    pub user: Option<String>,
    /// File whose first line is the password; or LOADGEN_PASSWORD in the environment
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// CA certificates (PEM), instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Take any server certificate
    #[arg(long)]
    pub insecure: bool,
    /// Source addresses, in turn: A,B or A-B. Loopback brokers get 127.0.1.x by themselves from
    /// 20,000 clients on
    #[arg(long, value_name = "ADDRESSES", value_parser = addresses, default_value = "")]
    pub source: Addresses,
    /// Connects per second
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub connect_rate: Option<f64>,
    /// Connects that are in the making at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connecting_max: u32,
    /// Keep alive in seconds; 0: none
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub keep_alive: u16,
    /// What client ids begin with
    #[arg(long, default_value = "loadgen", value_name = "TEXT")]
    pub client_id_prefix: String,
    /// Unacknowledged publishes of QoS 1 and 2 per publisher, if the broker takes as many; 1000 unless given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub inflight_max: Option<u16>,
    /// Each packet leaves in a write of its own, as from clients that have nothing to do with each other
    #[arg(long)]
    pub write_each: bool,
    /// Give up when nothing moves for so long
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    pub patience: Duration,
    /// Seed of topics, payloads and client ids; another each time unless given
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Threads, no more than clients; as many as CPUs this process may use unless given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

/// Unacknowledged publishes per publisher unless they are said.
const INFLIGHT_MAX: u16 = 1000;

/// Addresses to come from.
#[derive(Clone, Debug, Default)]
pub struct Addresses(pub Vec<IpAddr>);

impl Connection {
    /// The TLS part.
    pub fn tls(&self) -> TlsOptions {
        TlsOptions {
            ca: self.ca.clone(),
            certificate: self.cert.clone(),
            key: self.key.clone(),
            is_insecure: self.insecure,
        }
    }

    /// User name and password; `from_url` is the user that the broker's URL names.
    ///
    /// # Errors
    /// A message that never holds the password.
    pub fn credentials(
        &self,
        from_url: Option<&str>,
    ) -> Result<(Option<String>, Option<String>), String> {
        let user = match (&self.user, from_url) {
            (Some(user), Some(other)) if user != other => {
                return Err("--user and the broker's URL name different users".into());
            }
            (user, from_url) => user.clone().or_else(|| from_url.map(str::to_owned)),
        };
        let password = match (&self.password_file, std::env::var(PASSWORD).ok()) {
            (Some(_), Some(_)) => {
                return Err(format!("either --password-file or {PASSWORD}, not both"));
            }
            (Some(path), None) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            (None, from_environment) => from_environment,
        };
        if password.is_some() && user.is_none() {
            return Err("there is a password but no user name (--user, mqtt://USER@HOST)".into());
        }
        Ok((user, password))
    }

    /// Unacknowledged publishes per publisher.
    pub fn inflight_max(&self) -> u16 {
        self.inflight_max.unwrap_or(INFLIGHT_MAX)
    }

    /// Threads to run.
    pub fn threads(&self) -> u32 {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or(available as u32)
    }
}

/// Wildcards in subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wildcard {
    /// Exact topics
    None,
    /// `+` in place of publisher and topic
    Plus,
    /// `#` in place of publisher and topic
    Hash,
}

/// How long is published unless it is said.
pub const DURATION: Duration = Duration::from_secs(10);

/// What is published, and when.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// QoS of publishes and subscriptions
    #[arg(long, default_value_t = 0, value_parser = super::qos())]
    pub qos: u8,
    /// QoS of publishes, if another
    #[arg(long, value_parser = super::qos())]
    pub publish_qos: Option<u8>,
    /// QoS of subscriptions, if another
    #[arg(long, value_parser = super::qos())]
    pub subscribe_qos: Option<u8>,
    /// Closed loop: messages per publisher until all their deliveries have come
    #[arg(long, default_value_t = 1, conflicts_with = "rate", value_parser = window())]
    pub window: u32,
    /// Open loop: messages per second over all publishers, whether or not the broker keeps up
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Messages of each publisher
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u32).range(1..))]
    pub messages: Option<u32>,
    /// How long to publish, warm-up included; 10s unless --messages is given
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Left out of the measurement at the start
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
    pub warmup: Duration,
    /// Payload bytes: N, LOW-HIGH, or SIZE:WEIGHT,SIZE:WEIGHT...; 16 of them are the stamp
    #[arg(long, default_value = "64")]
    pub size: Sizes,
    /// Publish retained; removed again at the end
    #[arg(long)]
    pub retain: bool,
    /// Topics of each publisher, in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub topics: u32,
    /// Levels between the prefix of a topic and its publisher
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub depth: u32,
    /// Wildcards in the subscriptions; what fits the workload unless given
    #[arg(long)]
    pub wildcard: Option<Wildcard>,
    /// Topic aliases, where the broker takes them (5.0)
    #[arg(long)]
    pub topic_alias: bool,
    /// Share of the deliveries at QoS 0 that may be lost, such as 1%
    #[arg(long, default_value = "0%", value_name = "SHARE", value_parser = share)]
    pub allow_loss: f64,
}

fn window() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=65_000)
}

impl Load {
    /// QoS of publishes.
    pub fn publish_qos(&self) -> u8 {
        self.publish_qos.unwrap_or(self.qos)
    }

    /// QoS of subscriptions.
    pub fn subscribe_qos(&self) -> u8 {
        self.subscribe_qos.unwrap_or(self.qos)
    }

    /// Open or closed loop.
    pub fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Window(self.window), Pace::Rate)
    }

    /// What ends it.
    pub fn finish(&self) -> Finish {
        match self.messages {
            Some(messages) => Finish::Messages(messages),
            None => Finish::After(self.duration.unwrap_or(DURATION)),
        }
    }
}

/// Looking for the highest rate.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Search")]
pub struct Search {
    /// Look for the highest open-loop rate that holds the objective
    #[arg(
        long,
        requires = "slo",
        conflicts_with_all = ["rate", "window", "messages", "duration", "warmup", "hlog", "workers"]
    )]
    pub find_max: bool,
    /// Rate of the first trial
    #[arg(
        long,
        default_value = "100",
        value_name = "PER_SECOND",
        value_parser = rate,
        requires = "find_max"
    )]
    pub from: f64,
    /// How long a trial publishes
    #[arg(
        long,
        default_value = "5s",
        value_name = "TIME",
        value_parser = duration,
        requires = "find_max"
    )]
    pub trial: Duration,
}

/// What is watched and written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Process id of the broker, to report its CPU time and memory; repeatable
    #[arg(long, conflicts_with = "broker_cgroup")]
    pub pid: Vec<u32>,
    /// Cgroup (v2) of the broker, to report its CPU time and memory
    #[arg(long, value_name = "FOLDER")]
    pub broker_cgroup: Option<PathBuf>,
    /// The objective: a percentile of the latency, such as p99=10ms; a run that misses it ends with code 4
    #[arg(long, value_name = "PXX=TIME")]
    pub slo: Option<Slo>,
    /// Workers (`loadgen worker`) that make the load, each all of it with topics and clients of its own
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        conflicts_with_all = ["pid", "broker_cgroup", "hlog"]
    )]
    pub workers: Vec<String>,
    /// Version of the broker, to stand in the result
    #[arg(long, value_name = "TEXT")]
    pub broker_version: Option<String>,
    /// Print the result as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write the percentiles of the delivery latency, as HdrHistogram's plotter reads them
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a histogram per second, as HdrHistogram's log tools read them
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
}

impl Output {
    /// Where the broker's use of the machine is read.
    pub fn broker(&self) -> Option<Broker> {
        match &self.broker_cgroup {
            Some(path) => Some(Broker::Cgroup(path.clone())),
            None if self.pid.is_empty() => None,
            None => Some(Broker::Processes(self.pid.clone())),
        }
    }
}
