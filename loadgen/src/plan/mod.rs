//! What a run does, decided before it begins: clients in groups, what they publish and are owed.
//!
//! A plan is made from the command line ([`scenario`]), a preset or a file ([`mixed`]) and is not
//! changed afterwards. Workers and the conductor read it.

pub mod mixed;
pub mod preset;
pub mod scenario;
pub mod size;
pub mod streams;
pub mod topic;

use crate::args::Connection;
use crate::stamp::Payloads;
use crate::transport::Target;
use serde::Deserialize;
use size::Sizes;
use std::sync::Arc;
use std::time::Duration;
use streams::{Resolver, Sources, Streams};

/// Clients that do the same.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// For messages and reports.
    pub name: String,
    /// How many clients.
    pub count: u32,
    /// What each publishes.
    pub publish: Option<PublishSpec>,
    /// What each subscribes to.
    pub subscribe: Option<SubscribeSpec>,
    /// How they read.
    pub reading: Reading,
    /// Whether they all drop and come back in the middle of the run.
    pub is_stormy: bool,
    /// Whether they leave before anything is published, and come back when everything is.
    pub is_away: bool,
    /// Clean session, or one that stays.
    pub is_clean: bool,
    /// Clients that say goodbye and come back at once, per second over the group, in turn.
    pub reconnect_rate: Option<f64>,
}

/// What a publisher does.
#[derive(Clone, Debug)]
pub struct PublishSpec {
    /// Pattern of its topics.
    pub topic: String,
    /// How many topics it goes round.
    pub topics: u32,
    pub qos: u8,
    pub is_retained: bool,
    pub sizes: Sizes,
    pub pace: Pace,
    /// Topic aliases, where the broker takes them.
    pub is_aliased: bool,
}

/// When a publisher sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: so many messages until all their deliveries have come.
    Window(u32),
    /// Open loop: so many per second over the group, whether or not the broker keeps up.
    Rate(f64),
    /// Closed loop of one message, with a pause after its deliveries have come.
    Think(Duration),
}

impl Pace {
    /// Messages that may be outstanding, if that is limited.
    pub const fn window(self) -> Option<u32> {
        match self {
            Pace::Window(window) => Some(window),
            Pace::Think(_) => Some(1),
            Pace::Rate(_) => None,
        }
    }
}

/// What a subscriber wants.
#[derive(Clone, Debug)]
pub struct SubscribeSpec {
    /// Patterns of its filters.
    pub filters: Vec<String>,
    pub qos: u8,
    /// Members take turns in so many shared groups of this name.
    pub share: Option<Share>,
    /// Subscribes when everything is published, to be sent what is retained.
    pub is_late: bool,
}

/// Shared subscription groups.
#[derive(Clone, Debug)]
pub struct Share {
    /// Name before the group's number.
    pub name: String,
    /// Client `i` joins group `i % groups`.
    pub groups: u32,
}

/// How a subscriber reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// As fast as it can.
    #[default]
    Fast,
    /// Not at all.
    Stalled,
    /// So many bytes per second.
    Slow(u32),
}

/// What ends the publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// So many messages per publisher.
    Messages(u32),
    /// So long after the start, warm-up included.
    After(Duration),
}

/// What is the same for every client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the workload.
    pub scenario: String,
    pub target: Arc<Target>,
    pub protocol: u8,
    pub keep_alive_s: u16,
    pub user: Option<String>,
    pub password: Option<String>,
    pub client_id_prefix: String,
    /// Connects per second over all workers.
    pub connect_rate: Option<f64>,
    /// Connects in the making at a time.
    pub connecting_max: u32,
    pub finish: Finish,
    /// Left out of the measurement at the start.
    pub warmup: Duration,
    /// Stay connected for so long, without load.
    pub hold: Duration,
    /// When stormy clients drop, and how long the load goes on after they are back.
    pub storm: Option<Storm>,
    /// Give up when nothing happens for so long.
    pub patience: Duration,
    /// Unacknowledged publishes per publisher.
    pub inflight_max: u16,
    /// Each packet leaves in a write of its own.
    pub writes_each: bool,
    pub threads: u32,
    /// Failed connects are counted, not fatal.
    pub tolerates_failures: bool,
    /// Share of the deliveries at QoS 0 that may be lost.
    pub loss_share_max: f64,
    /// Retained messages are removed at the end.
    pub clears_retained: bool,
    /// Run by a shell when everything is published and those who left are not back yet.
    pub command: Option<String>,
}

/// When everybody comes back at once.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Load before it.
    pub after: Duration,
    /// Load after everybody is back.
    pub settle: Duration,
}

/// A group with its place among all clients.
#[derive(Debug)]
pub struct Group {
    /// What it does.
    pub spec: GroupSpec,
    /// Number of its first client.
    pub first_client: u32,
    /// Number of its first publisher, if it publishes.
    pub first_publisher: u32,
    /// One entry for all, or one for each client.
    sources: Vec<Arc<Sources>>,
}

impl Group {
    /// What client `index` of the group is owed.
    pub fn sources(&self, index: u32) -> Arc<Sources> {
        match self.sources.as_slice() {
            [only] => only.clone(),
            many => many.get(index as usize).cloned().unwrap_or_default(),
        }
    }

    /// Whether every message that its subscribers are owed is counted as owed.
    pub fn is_owed(&self) -> bool {
        self.spec.reading == Reading::Fast
            && !self.spec.is_stormy
            && !self.spec.is_away
            && self.spec.reconnect_rate.is_none()
            && self.spec.subscribe.as_ref().is_some_and(|s| !s.is_late)
    }
}

/// A publisher among all publishers.
#[derive(Clone, Copy, Debug)]
pub struct Publisher {
    /// Its group.
    pub group: u32,
    /// Number of its first stream; it has as many as topics.
    pub first_stream: u32,
}

/// A shared subscription: its members together are owed each message once.
#[derive(Debug)]
pub struct ShareGroup {
    /// What it is owed.
    pub sources: Arc<Sources>,
    /// QoS of the subscription.
    pub qos: u8,
}

/// A whole run.
#[derive(Debug)]
pub struct Plan {
    pub settings: Settings,
    pub groups: Vec<Group>,
    pub streams: Streams,
    pub publishers: Vec<Publisher>,
    pub share_groups: Vec<ShareGroup>,
    pub payloads: Payloads,
    /// Distinguishes topics and client ids of this run.
    pub run: String,
    /// What the run's topics, payloads and client ids were made from.
    pub seed: u64,
    /// Largest window of any publisher.
    pub window_max: u32,
}

/// Refuses what was asked for and would mean nothing with these groups.
///
/// # Errors
/// Names the option.
pub fn check_said(groups: &[GroupSpec], said: &Connection) -> Result<(), String> {
    let mut publishes = groups.iter().filter_map(|spec| spec.publish.as_ref());
    if said.inflight_max.is_some() && publishes.all(|publish| publish.qos == 0) {
        return Err("--inflight-max means nothing: nobody publishes with QoS 1 or 2".into());
    }
    let clients = groups.iter().map(|spec| spec.count).sum();
    match said.threads {
        Some(threads) if threads > clients => Err(format!(
            "--threads={threads} is more than the {clients} client(s) that there are"
        )),
        _ => Ok(()),
    }
}

impl Plan {
    /// Settles who is owed what.
    pub fn new(settings: Settings, specs: Vec<GroupSpec>, run: u64) -> Result<Self, String> {
        let run_text = format!("{:06x}", run & 0xFF_FFFF);
        let mut streams = Streams::default();
        let mut publishers = Vec::new();
        let mut groups = Vec::new();
        let mut first_client = 0;
        for spec in specs {
            let first_publisher = publishers.len() as u32;
            check(&spec, settings.protocol).map_err(|why| format!("{}: {why}", spec.name))?;
            if let Some(publish) = &spec.publish {
                let group = groups.len() as u32;
                for index in 0..spec.count {
                    let number = publishers.len() as u32;
                    let first_stream = streams.topics.len() as u32;
                    for topic in 0..publish.topics {
                        let topic = topic::expand(&publish.topic, index, topic, &run_text)?;
                        topic::check_topic(&topic)?;
                        streams.add(topic, number, publish.qos, publish.pace.window().is_some())?;
                    }
                    publishers.push(Publisher {
                        group,
                        first_stream,
                    });
                }
            }
            let count = spec.count;
            groups.push(Group {
                spec,
                first_client,
                first_publisher,
                sources: Vec::new(),
            });
            first_client += count;
        }
        let share_groups = resolve_sources(&mut groups, &mut streams, &run_text)?;
        let sizes = groups.iter().filter_map(|g| g.spec.publish.as_ref());
        let bytes_max = sizes.map(|p| p.sizes.bytes_max()).max().unwrap_or(0);
        let paces = groups.iter().filter_map(|g| g.spec.publish.as_ref());
        let window_max = paces.filter_map(|p| p.pace.window()).max().unwrap_or(1);
        Ok(Plan {
            settings,
            groups,
            streams,
            publishers,
            share_groups,
            payloads: Payloads::new(run, bytes_max),
            run: run_text,
            seed: run,
            window_max,
        })
    }

    /// All clients.
    pub fn clients(&self) -> u32 {
        self.groups.iter().map(|group| group.spec.count).sum()
    }

    /// Whether somebody subscribes after everything is published.
    pub fn has_late_subscribers(&self) -> bool {
        let mut subscribes = self.groups.iter().filter_map(|g| g.spec.subscribe.as_ref());
        subscribes.any(|subscribe| subscribe.is_late)
    }

    /// Clients that leave and come back.
    pub fn away(&self) -> u32 {
        let away = self.groups.iter().filter(|group| group.spec.is_away);
        away.map(|group| group.spec.count).sum()
    }

    /// Messages per second of the open loop, if there is one.
    pub fn rate(&self) -> Option<f64> {
        let publishes = self.groups.iter().filter_map(|g| g.spec.publish.as_ref());
        let rates = publishes.filter_map(|publish| match publish.pace {
            Pace::Rate(rate) => Some(rate),
            Pace::Window(_) | Pace::Think(_) => None,
        });
        rates.reduce(|sum, rate| sum + rate)
    }

    /// The filters that client `index` of a group sends, `$share` prefix included.
    pub fn wire_filters(&self, group: &Group, index: u32) -> Vec<String> {
        let Some(subscribe) = &group.spec.subscribe else {
            return Vec::new();
        };
        let filters = subscribe.filters.iter();
        filters
            .filter_map(|filter| topic::expand(filter, index, 0, &self.run).ok())
            .map(|filter| match &subscribe.share {
                Some(share) => format!("$share/{}{}/{filter}", share.name, index % share.groups),
                None => filter,
            })
            .collect()
    }

    /// Number of the shared group that client `index` of group number `group` is in.
    pub fn share_group(&self, group: usize, index: u32) -> Option<usize> {
        let groups_of = |g: &Group| {
            let share = g.spec.subscribe.as_ref()?.share.as_ref()?;
            Some(share.groups.min(g.spec.count))
        };
        let within = index % groups_of(self.groups.get(group)?)?;
        let before: u32 = self.groups[..group].iter().filter_map(groups_of).sum();
        Some((before + within) as usize)
    }
}

/// Whether everything that a group is given has a meaning.
fn check(spec: &GroupSpec, protocol: u8) -> Result<(), String> {
    if let Some(publish) = &spec.publish {
        if publish.topics > 1 && !publish.topic.contains("{t}") {
            return Err("several topics need {t} in their pattern".into());
        }
        if publish.is_aliased && protocol != 5 {
            return Err("topic aliases are of MQTT 5.0".into());
        }
        if publish.is_aliased && publish.topics > u32::from(u16::MAX) {
            return Err("a connection has at most 65535 topic aliases".into());
        }
    }
    let Some(subscribe) = &spec.subscribe else {
        return match spec.reading {
            Reading::Fast => Ok(()),
            _ => Err("who subscribes to nothing cannot read slowly".into()),
        };
    };
    if subscribe
        .filters
        .iter()
        .any(|filter| filter.contains("{t}"))
    {
        return Err("a filter has no {t}: use + in its place".into());
    }
    match &subscribe.share {
        Some(share) if share.groups > spec.count => Err(format!(
            "{} shared groups need at least as many members, not {}",
            share.groups, spec.count
        )),
        _ => Ok(()),
    }
}

fn resolve_sources(
    groups: &mut [Group],
    streams: &mut Streams,
    run: &str,
) -> Result<Vec<ShareGroup>, String> {
    let mut share_groups = Vec::new();
    let mut owed: Vec<Arc<Sources>> = Vec::new();
    let mut resolver = Resolver::new(streams);
    for group in groups.iter_mut() {
        let Some(subscribe) = group.spec.subscribe.clone() else {
            continue;
        };
        let depends_on_client = subscribe.filters.iter().any(|f| f.contains("{i"));
        let different = if depends_on_client {
            group.spec.count
        } else {
            1
        };
        for index in 0..different {
            let expanded: Result<Vec<_>, _> = subscribe
                .filters
                .iter()
                .map(|filter| topic::expand(filter, index, 0, run))
                .collect();
            group.sources.push(resolver.resolve(&expanded?)?);
        }
        if let Some(share) = &subscribe.share {
            if depends_on_client {
                return Err("members of a shared group need the same filter: no {i}".into());
            }
            for _ in 0..share.groups.min(group.spec.count) {
                share_groups.push(ShareGroup {
                    sources: group.sources(0),
                    qos: subscribe.qos,
                });
                if group.is_owed() {
                    owed.push(group.sources(0));
                }
            }
        } else if group.is_owed() {
            owed.extend((0..group.spec.count).map(|index| group.sources(index)));
        }
    }
    for sources in owed {
        streams.owe(&sources);
    }
    Ok(share_groups)
}
