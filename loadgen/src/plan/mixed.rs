//! A workload from a TOML file.
//!
//! ```toml
//! duration = "30s"
//!
//! [[group]]
//! name = "sensors"
//! clients = 1000
//! publish = { topic = "plant/{run}/{i}/t{t}", topics = 3, qos = 1, size = "16-256", rate = 5000 }
//!
//! [[group]]
//! name = "dashboards"
//! clients = 20
//! subscribe = { filters = ["plant/{run}/+/t0"], qos = 0 }
//! ```

use super::scenario::{self, Workload};
use super::size::Sizes;
use super::{Finish, GroupSpec, Pace, PublishSpec, Reading, Share, SubscribeSpec};
use crate::args::{self, duration, share};
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    duration: Option<String>,
    messages: Option<u32>,
    #[serde(default)]
    warmup: Option<String>,
    #[serde(default)]
    allow_loss: Option<String>,
    #[serde(rename = "group")]
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    clients: u32,
    publish: Option<Publish>,
    subscribe: Option<Subscribe>,
    #[serde(default)]
    reading: Reading,
    #[serde(default = "yes")]
    clean: bool,
    reconnect_rate: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    topic: String,
    #[serde(default = "one")]
    topics: u32,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    size: Sizes,
    rate: Option<f64>,
    window: Option<u32>,
    think: Option<String>,
    #[serde(default)]
    topic_alias: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    filters: Vec<String>,
    #[serde(default)]
    qos: u8,
    share: Option<String>,
}

const fn yes() -> bool {
    true
}

const fn one() -> u32 {
    1
}

impl Publish {
    fn pace(&self) -> Result<Pace, String> {
        match (self.rate, self.window, &self.think) {
            (Some(rate), None, None) if rate > 0.0 => Ok(Pace::Rate(rate)),
            (None, Some(window @ 1..=65_000), None) => Ok(Pace::Window(window)),
            (None, None, Some(think)) => Ok(Pace::Think(duration(think)?)),
            _ => Err("`publish` needs one of rate (> 0), window (1 to 65000) and think".into()),
        }
    }
}

impl Group {
    fn spec(self) -> Result<GroupSpec, String> {
        if !(1..=1_000_000).contains(&self.clients) {
            return Err("`clients` is between 1 and 1000000".into());
        }
        if self
            .reconnect_rate
            .is_some_and(|rate| !(rate > 0.0 && rate.is_finite()))
        {
            return Err("`reconnect_rate` is more than 0".into());
        }
        let highest_qos = self.publish.as_ref().map_or(0, |p| p.qos);
        if highest_qos.max(self.subscribe.as_ref().map_or(0, |s| s.qos)) > 2 {
            return Err("`qos` is 0, 1 or 2".into());
        }
        if self.publish.as_ref().is_some_and(|p| p.topics == 0) {
            return Err("`topics` is at least 1".into());
        }
        let publish = match self.publish {
            None => None,
            Some(publish) => Some(PublishSpec {
                pace: publish.pace()?,
                topic: publish.topic,
                topics: publish.topics,
                qos: publish.qos,
                is_retained: publish.retain,
                sizes: publish.size,
                is_aliased: publish.topic_alias,
            }),
        };
        let subscribe = self.subscribe.map(|subscribe| SubscribeSpec {
            filters: subscribe.filters,
            qos: subscribe.qos,
            share: subscribe.share.map(|name| Share { name, groups: 1 }),
            is_late: false,
        });
        Ok(GroupSpec {
            name: self.name,
            count: self.clients,
            publish,
            subscribe,
            reading: self.reading,
            is_stormy: false,
            is_away: false,
            is_clean: self.clean,
            reconnect_rate: self.reconnect_rate,
        })
    }
}

fn parse(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

/// The workload that a file describes.
pub fn workload(args: &args::Mixed) -> Result<Workload, String> {
    let named = |error: String| format!("{}: {error}", args.file.display());
    let text = std::fs::read_to_string(&args.file).map_err(|error| named(error.to_string()))?;
    let file = parse(&text).map_err(named)?;
    let mut specs = Vec::new();
    for group in file.groups {
        let name = group.name.clone();
        let spec = group.spec();
        specs.push(spec.map_err(|error| named(format!("group `{name}`: {error}")))?);
    }
    let clients = specs.iter().map(|spec| spec.count).sum();
    let mut settings = scenario::settings("mixed", &args.common.connection, clients)?;
    let time = |text: Option<String>, default| match text {
        Some(text) => duration(&text).map_err(named),
        None => Ok(default),
    };
    settings.warmup = time(file.warmup, Duration::ZERO)?;
    let has_duration = file.duration.is_some();
    let from_file = time(file.duration, Duration::from_secs(10))?;
    settings.finish = match (args.duration, file.messages) {
        (Some(_), Some(_)) => {
            return Err(named("`messages` ends the run: no --duration".into()));
        }
        (None, Some(_)) if has_duration => {
            return Err(named("either `duration` or `messages`, not both".into()));
        }
        (Some(duration), None) => Finish::After(duration),
        (None, Some(messages)) => Finish::Messages(messages),
        (None, None) => Finish::After(from_file),
    };
    if let Finish::After(duration) = settings.finish
        && settings.warmup >= duration
    {
        return Err(named("the warm-up is as long as the run".into()));
    }
    if let Some(allowed) = &file.allow_loss {
        settings.loss_share_max = share(allowed).map_err(|e| named(format!("allow_loss: {e}")))?;
    }
    let mut publishes = specs.iter().filter_map(|spec| spec.publish.as_ref());
    settings.clears_retained = publishes.any(|publish| publish.is_retained);
    Ok((settings, specs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_groups() {
        let text = r#"
            duration = "3s"
            [[group]]
            name = "sensors"
            clients = 10
            reconnect_rate = 0.5
            publish = { topic = "a/{i}", qos = 1, size = "16:1,64:1", think = "20ms" }
            [[group]]
            name = "workers"
            clients = 3
            reading = { slow = 1000 }
            subscribe = { filters = ["a/+"], qos = 2, share = "w" }
        "#;
        let file = parse(text).unwrap();
        let specs: Result<Vec<_>, _> = file.groups.into_iter().map(Group::spec).collect();
        let specs = specs.unwrap();
        let pace = specs[0].publish.as_ref().map(|publish| publish.pace);
        assert_eq!(pace, Some(Pace::Think(Duration::from_millis(20))));
        assert_eq!(specs[0].reconnect_rate, Some(0.5));
        assert_eq!(specs[1].reading, Reading::Slow(1000));
        assert!(
            specs[1]
                .subscribe
                .as_ref()
                .is_some_and(|s| s.share.is_some())
        );
    }

    #[test]
    fn mistakes_are_named() {
        let group = "[[group]]\nname = \"x\"\nclients = 1\n";
        let unknown = parse(&format!("{group}publsh = 1")).unwrap_err();
        assert!(unknown.contains("publsh"), "{unknown}");
        let rate = format!("{group}reconnect_rate = 0");
        let error = parse(&rate).unwrap().groups.remove(0).spec().unwrap_err();
        assert!(error.contains("reconnect_rate"), "{error}");
        let pace = format!("{group}publish = {{ topic = \"a\", size = \"16\" }}");
        let error = parse(&pace).unwrap().groups.remove(0).spec().unwrap_err();
        assert!(error.contains("rate"), "{error}");
    }
}
