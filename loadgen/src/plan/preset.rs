//! The workloads of the Open MQTT Benchmark Suite: QoS 1, 16 bytes, each publisher once a second
//! unless the name says otherwise.

use super::scenario::{self, Workload};
use super::size::Sizes;
use super::{Finish, GroupSpec, Pace};
use crate::args::{self, Common, PresetRun};
use clap::{Parser, ValueEnum};

/// Workloads by their published names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 10,000 connections, 100 per second
    #[value(name = "conn-tcp-10K-100")]
    ConnTcp10K100,
    /// 1,000,000 connections, 5,000 per second
    #[value(name = "conn-tcp-1M-5K")]
    ConnTcp1M5K,
    /// 1 publisher, 1,000 subscribers, 1 message per second
    #[value(name = "fanout-1-1K-1-1K")]
    Fanout1K,
    /// 5 publishers, 1,000 subscribers, 250 messages per second
    #[value(name = "fanout-5-1000-5-250K")]
    Fanout250K,
    /// 1,000 pairs, 1,000 messages per second
    #[value(name = "p2p-1K-1K-1K-1K")]
    P2p1K,
    /// 50,000 pairs, 50,000 messages per second
    #[value(name = "p2p-50K-50K-50K-50K")]
    P2p50K,
    /// 1,000 publishers, 5 sharing subscribers, 1,000 messages per second
    #[value(name = "sharedsub-1K-5-1K-1K")]
    Shared1K,
    /// 50,000 publishers, 500 sharing subscribers, 50,000 messages per second
    #[value(name = "sharedsub-50K-500-50K-50K")]
    Shared50K,
}

impl Preset {
    /// Its published name.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The workload as a command line of ours.
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Preset::ConnTcp10K100 => &["connect", "--clients=10000", "--connect-rate=100"],
            Preset::ConnTcp1M5K => &["connect", "--clients=1000000", "--connect-rate=5000"],
            Preset::Fanout1K => &["fanout", "--subscribers=1000", "--rate=1"],
            Preset::Fanout250K => &[
                "fanout",
                "--publishers=5",
                "--subscribers=1000",
                "--rate=250",
            ],
            Preset::P2p1K => &["p2p", "--pairs=1000", "--rate=1000"],
            Preset::P2p50K => &["p2p", "--pairs=50000", "--rate=50000"],
            Preset::Shared1K => &[
                "shared",
                "--publishers=1000",
                "--subscribers=5",
                "--rate=1000",
            ],
            Preset::Shared50K => &[
                "shared",
                "--publishers=50000",
                "--subscribers=500",
                "--rate=50000",
            ],
        }
    }
}

/// The workload that a preset names.
pub fn workload(run: &PresetRun) -> Result<Workload, String> {
    let preset = run.name;
    let words = std::iter::once("loadgen").chain(preset.arguments().iter().copied());
    let parsed = args::Args::try_parse_from(words).map_err(|error| error.to_string())?;
    let (mut settings, mut groups) = match parsed.command {
        args::Command::Connect(mut connect) => {
            let own_rate = connect.common.connection.connect_rate;
            connect.common = with_rate(&run.common, own_rate);
            connect.hold = run.duration;
            scenario::connect(&connect)?
        }
        args::Command::Fanout(mut fanout) => {
            fanout.common = run.common.clone();
            scenario::fanout(&fanout)?
        }
        args::Command::P2p(mut p2p) => {
            p2p.common = run.common.clone();
            scenario::p2p(&p2p)?
        }
        args::Command::Shared(mut shared) => {
            shared.common = run.common.clone();
            scenario::shared(&shared)?
        }
        _ => return Err(format!("{} is not known", preset.name())),
    };
    settings.scenario = preset.name();
    if !settings.hold.is_zero() && !run.warmup.is_zero() {
        return Err(format!(
            "{} has no --warmup: it only connects",
            preset.name()
        ));
    }
    if settings.hold.is_zero() {
        if run.warmup >= run.duration {
            return Err("the warm-up is as long as the run (--warmup, --duration)".into());
        }
        settings.finish = Finish::After(run.duration);
        settings.warmup = run.warmup;
    }
    for group in &mut groups {
        apply_suite(group)?;
    }
    Ok((settings, groups))
}

fn with_rate(common: &Common, rate: Option<f64>) -> Common {
    let mut common = common.clone();
    common.connection.connect_rate = common.connection.connect_rate.or(rate);
    common
}

/// QoS 1 and 16 bytes everywhere.
fn apply_suite(group: &mut GroupSpec) -> Result<(), String> {
    if let Some(publish) = &mut group.publish {
        publish.qos = 1;
        publish.sizes = "16".parse::<Sizes>()?;
        debug_assert!(matches!(publish.pace, Pace::Rate(_)));
    }
    if let Some(subscribe) = &mut group.subscribe {
        subscribe.qos = 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn every_preset_makes_a_plan_of_the_published_size() {
        for (preset, clients, rate) in [
            (Preset::ConnTcp10K100, 10_000, None),
            (Preset::ConnTcp1M5K, 1_000_000, None),
            (Preset::Fanout1K, 1_001, Some(1.0)),
            (Preset::Fanout250K, 1_005, Some(250.0)),
            (Preset::P2p1K, 2_000, Some(1_000.0)),
            (Preset::P2p50K, 100_000, Some(50_000.0)),
            (Preset::Shared1K, 1_005, Some(1_000.0)),
            (Preset::Shared50K, 50_500, Some(50_000.0)),
        ] {
            let name = preset.name();
            let args = Args::try_parse_from(["loadgen", "preset", &name]).unwrap();
            let Command::Preset(run) = args.command else {
                unreachable!("{name} is a preset");
            };
            let (settings, groups) = workload(&run).unwrap();
            assert_eq!(settings.scenario, name);
            let plan = crate::plan::Plan::new(settings, groups, 1).unwrap();
            assert_eq!((plan.clients(), plan.rate()), (clients, rate), "{name}");
        }
    }
}
