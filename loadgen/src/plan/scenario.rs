//! The workloads of the command line as groups of clients.

use super::{Finish, GroupSpec, Pace, PublishSpec, Reading, Settings, Share, Storm, SubscribeSpec};
use crate::args::Wildcard;
use crate::args::{self, Connection, Load};
use crate::transport::Target;
use std::sync::Arc;
use std::time::Duration;

/// Settings and groups: all that [`super::Plan::new`] needs.
pub type Workload = (Settings, Vec<GroupSpec>);

/// What all workloads share.
pub fn settings(scenario: &str, connection: &Connection, clients: u32) -> Result<Settings, String> {
    let tls = connection.tls();
    let target = Target::new(&connection.broker, &tls, &connection.source.0, clients)?;
    let (user, password) = connection.credentials(target.user.as_deref())?;
    Ok(Settings {
        scenario: scenario.to_owned(),
        target: Arc::new(target),
        protocol: connection.protocol,
        keep_alive_s: connection.keep_alive,
        user,
        password,
        client_id_prefix: connection.client_id_prefix.clone(),
        connect_rate: connection.connect_rate,
        connecting_max: connection.connecting_max,
        finish: Finish::Messages(0),
        warmup: Duration::ZERO,
        hold: Duration::ZERO,
        storm: None,
        patience: connection.patience,
        inflight_max: connection.inflight_max(),
        writes_each: connection.write_each,
        threads: connection.threads(),
        tolerates_failures: false,
        loss_share_max: 0.0,
        clears_retained: false,
        command: None,
    })
}

/// Settings of a workload that publishes.
fn loaded(
    scenario: &str,
    connection: &Connection,
    load: &Load,
    clients: u32,
) -> Result<Settings, String> {
    let mut settings = settings(scenario, connection, clients)?;
    if load.topic_alias && connection.protocol != 5 {
        return Err("topic aliases are of MQTT 5.0 (--topic-alias, --protocol=5)".into());
    }
    settings.finish = load.finish();
    settings.warmup = load.warmup;
    settings.loss_share_max = load.allow_loss;
    settings.clears_retained = load.retain;
    if let Finish::After(duration) = settings.finish
        && settings.warmup >= duration
    {
        return Err("the warm-up is as long as the run (--warmup, --duration)".into());
    }
    Ok(settings)
}

/// A group without a job.
fn group(name: &str, count: u32) -> GroupSpec {
    GroupSpec {
        name: name.to_owned(),
        count,
        publish: None,
        subscribe: None,
        reading: Reading::Fast,
        is_stormy: false,
        is_away: false,
        is_clean: true,
        reconnect_rate: None,
    }
}

/// Topics are `loadgen/RUN/<levels>/PUBLISHER/TOPIC`.
fn prefix(load: &Load) -> String {
    let levels: String = (0..load.depth).map(|level| format!("/l{level}")).collect();
    format!("loadgen/{{run}}{levels}")
}

fn publishers(count: u32, load: &Load) -> GroupSpec {
    let mut publishers = group("publishers", count);
    publishers.publish = Some(PublishSpec {
        topic: format!("{}/{{i}}/{{t}}", prefix(load)),
        topics: load.topics,
        qos: load.publish_qos(),
        is_retained: load.retain,
        sizes: load.size.clone(),
        pace: load.pace(),
        is_aliased: load.topic_alias,
    });
    publishers
}

/// Filters for everything that `publishers` send.
fn everything(publishers: u32, load: &Load, wildcard: Wildcard) -> Vec<String> {
    let prefix = prefix(load);
    match wildcard {
        Wildcard::Plus => vec![format!("{prefix}/+/+")],
        Wildcard::Hash => vec![format!("{prefix}/#")],
        Wildcard::None => (0..publishers)
            .flat_map(|i| (0..load.topics).map(move |t| (i, t)))
            .map(|(i, t)| format!("{prefix}/{i}/{t}"))
            .collect(),
    }
}

fn subscribers(count: u32, filters: Vec<String>, load: &Load) -> GroupSpec {
    let mut subscribers = group("subscribers", count);
    subscribers.subscribe = Some(SubscribeSpec {
        filters,
        qos: load.subscribe_qos(),
        share: None,
        is_late: false,
    });
    subscribers
}

/// Exact filters fit into one SUBSCRIBE up to here.
const EXACT_FILTERS_MAX: u32 = 100;

/// Exact filters where they are few, else one wildcard.
fn fitting(load: &Load, publishers: u32) -> Wildcard {
    let few = publishers.saturating_mul(load.topics) <= EXACT_FILTERS_MAX;
    load.wildcard
        .unwrap_or(if few { Wildcard::None } else { Wildcard::Hash })
}

/// Everybody gets everything.
pub fn fanout(args: &args::Fanout) -> Result<Workload, String> {
    let clients = args.publishers + args.subscribers;
    let settings = loaded("fanout", &args.common.connection, &args.load, clients)?;
    let filters = everything(
        args.publishers,
        &args.load,
        fitting(&args.load, args.publishers),
    );
    let groups = vec![
        subscribers(args.subscribers, filters, &args.load),
        publishers(args.publishers, &args.load),
    ];
    Ok((settings, groups))
}

/// Many to few.
pub fn fanin(args: &args::Fanin) -> Result<Workload, String> {
    let clients = args.publishers + args.subscribers;
    let settings = loaded("fanin", &args.common.connection, &args.load, clients)?;
    let wildcard = args.load.wildcard.unwrap_or(Wildcard::Hash);
    let filters = everything(args.publishers, &args.load, wildcard);
    let groups = vec![
        subscribers(args.subscribers, filters, &args.load),
        publishers(args.publishers, &args.load),
    ];
    Ok((settings, groups))
}

/// What the subscriber of a pair asks for.
fn own_topics(load: &Load) -> Vec<String> {
    let prefix = prefix(load);
    match load.wildcard {
        Some(Wildcard::Plus) => vec![format!("{prefix}/{{i}}/+")],
        Some(Wildcard::Hash) => vec![format!("{prefix}/{{i}}/#")],
        Some(Wildcard::None) => exact_own_topics(load),
        None if load.topics > EXACT_FILTERS_MAX => vec![format!("{prefix}/{{i}}/+")],
        None => exact_own_topics(load),
    }
}

fn exact_own_topics(load: &Load) -> Vec<String> {
    let prefix = prefix(load);
    let topics = 0..load.topics;
    topics.map(|t| format!("{prefix}/{{i}}/{t}")).collect()
}

/// One to one.
pub fn p2p(args: &args::P2p) -> Result<Workload, String> {
    let clients = args.pairs.saturating_mul(2);
    let settings = loaded("p2p", &args.common.connection, &args.load, clients)?;
    let groups = vec![
        subscribers(args.pairs, own_topics(&args.load), &args.load),
        publishers(args.pairs, &args.load),
    ];
    Ok((settings, groups))
}

/// Many to groups that share.
pub fn shared(args: &args::Shared) -> Result<Workload, String> {
    if args.groups > args.subscribers {
        return Err(format!(
            "{} groups need at least as many members (--groups, --subscribers)",
            args.groups
        ));
    }
    let clients = args.publishers + args.subscribers;
    let settings = loaded("shared", &args.common.connection, &args.load, clients)?;
    let wildcard = args.load.wildcard.unwrap_or(Wildcard::Hash);
    let filters = everything(args.publishers, &args.load, wildcard);
    let mut sharing = subscribers(args.subscribers, filters, &args.load);
    if let Some(subscribe) = &mut sharing.subscribe {
        subscribe.share = Some(Share {
            name: "group".into(),
            groups: args.groups,
        });
    }
    Ok((
        settings,
        vec![sharing, publishers(args.publishers, &args.load)],
    ))
}

/// Connections that only stay.
pub fn connect(args: &args::Connect) -> Result<Workload, String> {
    let mut settings = settings("connect", &args.common.connection, args.clients)?;
    settings.hold = args.hold;
    settings.tolerates_failures = true;
    let mut clients = group("clients", args.clients);
    if args.subscribe {
        clients.subscribe = Some(SubscribeSpec {
            filters: vec!["loadgen/{run}/{i}".into()],
            qos: 0,
            share: None,
            is_late: false,
        });
    }
    Ok((settings, vec![clients]))
}

/// Retained messages, asked for afterwards.
pub fn retained(args: &args::Retained) -> Result<Workload, String> {
    let connection = &args.common.connection;
    let mut settings = settings("retained", connection, args.subscribers + 1)?;
    settings.finish = Finish::Messages(args.topics);
    settings.clears_retained = true;
    let mut publisher = group("publisher", 1);
    publisher.publish = Some(PublishSpec {
        topic: "loadgen/{run}/{t}".into(),
        topics: args.topics,
        qos: 1,
        is_retained: true,
        sizes: args.size.clone(),
        pace: Pace::Window(64),
        is_aliased: false,
    });
    let mut subscribers = group("subscribers", args.subscribers);
    subscribers.subscribe = Some(SubscribeSpec {
        filters: vec!["loadgen/{run}/#".into()],
        qos: args.qos,
        share: None,
        is_late: true,
    });
    Ok((settings, vec![subscribers, publisher]))
}

/// Pairs under load while others come back.
pub fn storm(args: &args::Storm) -> Result<Workload, String> {
    if args.load.duration.is_some() || args.load.messages.is_some() {
        return Err("a storm lasts --after and --settle: no --duration, no --messages".into());
    }
    let clients = args.clients + args.pairs.saturating_mul(2);
    let mut settings = loaded("storm", &args.common.connection, &args.load, clients)?;
    settings.finish = Finish::After(Duration::from_secs(604_800));
    settings.storm = Some(Storm {
        after: args.after + args.load.warmup,
        settle: args.settle,
    });
    let mut stormy = group("stormy", args.clients);
    stormy.is_stormy = true;
    stormy.is_clean = !args.persistent;
    stormy.subscribe = Some(SubscribeSpec {
        filters: vec!["loadgen/{run}-storm/{i}".into()],
        qos: args.load.subscribe_qos(),
        share: None,
        is_late: false,
    });
    let groups = vec![
        subscribers(args.pairs, own_topics(&args.load), &args.load),
        publishers(args.pairs, &args.load),
        stormy,
    ];
    Ok((settings, groups))
}

/// Fan-out beside subscribers that do not keep up.
pub fn slow(args: &args::Slow) -> Result<Workload, String> {
    if args.slow >= args.subscribers {
        return Err("some subscribers have to be fast (--slow, --subscribers)".into());
    }
    if args.slow == 0 && args.slow_rate > 0 {
        return Err("nobody is slow: no --slow-rate (--slow)".into());
    }
    let settings = loaded(
        "slow",
        &args.common.connection,
        &args.load,
        args.subscribers + 1,
    )?;
    let filters = everything(1, &args.load, fitting(&args.load, 1));
    let mut groups = vec![
        subscribers(args.subscribers - args.slow, filters.clone(), &args.load),
        publishers(1, &args.load),
    ];
    if args.slow > 0 {
        let mut slow = subscribers(args.slow, filters, &args.load);
        slow.name = "slow".into();
        slow.reading = match args.slow_rate {
            0 => Reading::Stalled,
            bytes => Reading::Slow(bytes),
        };
        groups.push(slow);
    }
    Ok((settings, groups))
}

/// Sessions that stay: everybody leaves, messages are published, everybody comes back for them.
pub fn offline(
    name: &str,
    args: &args::Offline,
    command: Option<&str>,
) -> Result<Workload, String> {
    let clients = args.subscribers + args.publishers;
    let mut settings = settings(name, &args.common.connection, clients)?;
    settings.finish = Finish::Messages(args.messages);
    settings.command = command.map(str::to_owned);
    let mut publishers = group("publishers", args.publishers);
    publishers.publish = Some(PublishSpec {
        topic: "loadgen/{run}/{i}".into(),
        topics: 1,
        qos: args.qos,
        is_retained: false,
        sizes: args.size.clone(),
        pace: Pace::Window(args.window),
        is_aliased: false,
    });
    let mut away = group("away", args.subscribers);
    away.is_away = true;
    away.is_clean = false;
    away.subscribe = Some(SubscribeSpec {
        filters: vec!["loadgen/{run}/#".into()],
        qos: args.qos,
        share: None,
        is_late: false,
    });
    Ok((settings, vec![away, publishers]))
}

/// A day of telemetry: sensors that report and now and then come back, dashboards that each watch a site.
pub fn telemetry(args: &args::Telemetry) -> Result<Workload, String> {
    if args.slow >= args.dashboards {
        return Err("some dashboards have to be fast (--slow, --dashboards)".into());
    }
    if args.interval.is_zero() {
        return Err("the interval is longer than nothing (--interval)".into());
    }
    let sites = args.sites.min(args.sensors);
    let clients = args.sensors + args.dashboards;
    let mut settings = settings("telemetry", &args.common.connection, clients)?;
    settings.finish = Finish::After(args.duration);
    settings.warmup = args.warmup;
    if settings.warmup >= args.duration {
        return Err("the warm-up is as long as the run (--warmup, --duration)".into());
    }
    settings.loss_share_max = args.allow_loss;
    let mut sensors = group("sensors", args.sensors);
    sensors.publish = Some(PublishSpec {
        topic: format!("site/{{run}}/{{i%{sites}}}/{{i}}"),
        topics: 1,
        qos: args.qos,
        is_retained: false,
        sizes: args.size.clone(),
        pace: Pace::Rate(f64::from(args.sensors) / args.interval.as_secs_f64()),
        is_aliased: false,
    });
    let reconnects = args.reconnects * f64::from(args.sensors);
    sensors.reconnect_rate = (reconnects > 0.0).then_some(reconnects);
    let dashboards = |name: &str, count: u32| {
        let mut watching = group(name, count);
        watching.subscribe = Some(SubscribeSpec {
            filters: vec![format!("site/{{run}}/{{i%{sites}}}/+")],
            qos: args.qos,
            share: None,
            is_late: false,
        });
        watching
    };
    let mut groups = vec![
        dashboards("dashboards", args.dashboards - args.slow),
        sensors,
    ];
    if args.slow > 0 {
        let mut slow = dashboards("slow", args.slow);
        slow.reading = match args.slow_rate {
            0 => Reading::Stalled,
            bytes => Reading::Slow(bytes),
        };
        groups.push(slow);
    }
    Ok((settings, groups))
}
