//! The command line.

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::time::Duration;

/// Load generator for MQTT brokers: verified deliveries, latency from the intended send time.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The workloads.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Few publishers, many subscribers on the same topic
    Fanout(Fanout),
}

/// One publisher to many subscribers.
#[derive(Clone, Debug, Parser)]
pub struct Fanout {
    /// Broker to load
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub broker: SocketAddr,
    /// Subscribers, each with a connection of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub subscribers: u32,
    /// Messages to publish
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: u64,
    /// Payload bytes; the first 16 are sequence and time
    #[arg(long, default_value_t = 64, value_parser = payload_bytes())]
    pub size: u32,
    /// QoS of publishes and subscriptions
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Protocol version: 4 is 3.1.1, 5 is 5.0
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub protocol: u8,
    /// Closed loop: messages in flight until all their deliveries have come
    #[arg(long, default_value_t = 1, conflicts_with = "rate", value_parser = window())]
    pub window: u64,
    /// Open loop: messages per second, whether or not the broker keeps up
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Give up when nothing has come for so long
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub patience: Duration,
    /// Process id of the broker, to report its CPU time per delivery
    #[arg(long)]
    pub pid: Option<u32>,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

fn payload_bytes() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(16..=268_000_000)
}

fn window() -> impl clap::builder::TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=65_000)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not between 0 and 86400 seconds".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
