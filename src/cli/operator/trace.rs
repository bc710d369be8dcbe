//! Packets of a client, an address or to a topic, as they come and go.

use super::line::Line;
use super::lists::encoded;
use super::reach::ReachArgs;
use super::table::{bytes, harmless};
use super::{Answer, Failure};
use crate::control::log;
use clap::{ArgGroup, Args};
use http_body_util::BodyExt;
use serde_json::Value;
use std::io::{self, Write};

/// Bytes of a line: more than a broker writes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What to follow, and how long.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("followed").required(true)))]
pub struct TraceArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Follow this client, also if it is not there yet
    #[arg(value_name = "CLIENT", group = "followed")]
    pub client_id: Option<String>,
    /// Follow clients at this address, or in this network (ADDRESS/BITS)
    #[arg(long, value_name = "ADDRESS", group = "followed")]
    pub address: Option<String>,
    /// Follow messages whose topics match this filter, from publishers and to subscribers
    #[arg(long, value_name = "FILTER", group = "followed")]
    pub topic: Option<String>,
    /// End after so many seconds [default: as admin.trace_seconds_max says]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// End after so many packets [default: as admin.trace_lines_max says]
    #[arg(long, value_name = "N")]
    pub lines: Option<u64>,
    /// Tell so many bytes of each payload, which takes a token of the role operate [default: 0]
    #[arg(long, value_name = "N")]
    pub payload_bytes: Option<u64>,
}

impl TraceArgs {
    fn path(&self) -> String {
        let what = [
            ("client", &self.client_id),
            ("address", &self.address),
            ("topic", &self.topic),
        ];
        let what = what.into_iter().filter_map(|(name, said)| {
            let said = said.as_deref()?;
            Some(format!("{name}={}", encoded(said)))
        });
        let bounds = [
            ("seconds", self.seconds),
            ("lines", self.lines),
            ("payload_bytes", self.payload_bytes),
        ];
        let bounds = bounds
            .into_iter()
            .filter_map(|(name, said)| Some(format!("{name}={}", said?)));
        let query: Vec<_> = what.chain(bounds).collect();
        format!("/trace?{}", query.join("&"))
    }
}

/// Follows until the broker ends it, or nobody reads.
pub(super) async fn trace(line: &mut Line, args: &TraceArgs) -> Result<Answer, Failure> {
    let mut body = line.follow(&args.path()).await?;
    let mut teller = Teller {
        as_json: args.reach.json,
        ..Teller::default()
    };
    let mut unread = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| line.broken(&error))?;
        unread.extend_from_slice(frame.data_ref().map_or(&[][..], |chunk| chunk));
        let whole = unread.iter().rposition(|byte| *byte == b'\n');
        if whole.is_none() && unread.len() > LINE_BYTES_MAX {
            return Err(line.broken(&"what it tells has no lines"));
        }
        let rest = unread.split_off(whole.map_or(0, |end| end + 1));
        let told = std::mem::replace(&mut unread, rest);
        if teller.tell(&told).is_err() {
            // Nobody reads any more.
            return Ok(teller.answer());
        }
    }
    match teller.has_ended {
        true => Ok(teller.answer()),
        false => Err(line.broken(&"the trace has no end")),
    }
}

/// Writes lines as they come.
#[derive(Default)]
struct Teller {
    as_json: bool,
    left_out: u64,
    has_ended: bool,
}

impl Teller {
    fn answer(&self) -> Answer {
        Answer {
            is_told: true,
            ..Answer::default()
        }
    }

    fn tell(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for line in lines.split(|byte| *byte == b'\n') {
            let Ok(told) = serde_json::from_slice::<Value>(line) else {
                continue;
            };
            match self.as_json {
                true => writeln!(out, "{told}")?,
                false => self.tell_people(&told, &mut out)?,
            }
            self.has_ended |= told.get("kind").and_then(Value::as_str) == Some("end");
        }
        out.flush()
    }

    fn tell_people(&mut self, told: &Value, out: &mut impl Write) -> io::Result<()> {
        let count = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or(0);
        let kind = told.get("kind").and_then(Value::as_str);
        if kind == Some("packet") {
            return writeln!(out, "{}", for_people(told));
        }
        let silent = told.get("silent_shards").and_then(Value::as_array);
        if kind == Some("begin") {
            let (seconds, lines) = (count("seconds"), count("lines"));
            log::say(&format!(
                "follows for {seconds} s, or until {lines} packets are told; Ctrl-C ends it"
            ));
        }
        for shard in silent.into_iter().flatten() {
            log::say(&format!(
                "shard {shard} does not answer: its packets are missing"
            ));
        }
        let left_out = count("left_out");
        if left_out > self.left_out {
            let more = left_out - self.left_out;
            log::say(&format!("{more} lines left out: they came too fast"));
            self.left_out = left_out;
        }
        if kind == Some("end") {
            let why = told.get("why").and_then(Value::as_str).unwrap_or_default();
            let lines = count("lines");
            log::say(&format!(
                "{}: {lines} packets told, {left_out} left out",
                harmless(why)
            ));
        }
        Ok(())
    }
}

/// A packet in a line: when (UTC), whose, from where, in which direction, and what it says.
fn for_people(told: &Value) -> String {
    let text = |name: &str| told.get(name).and_then(Value::as_str).map(harmless);
    let at_ms = told.get("at_ms").and_then(Value::as_u64).unwrap_or(0);
    let direction = match text("from").as_deref() {
        Some("client") => ">",
        _ => "<",
    };
    let mut words = vec![
        time(at_ms),
        text("client_id").unwrap_or_else(|| "-".to_owned()),
        text("address").unwrap_or_else(|| "-".to_owned()),
        direction.to_owned(),
        text("packet").unwrap_or_default(),
    ];
    if let Some(connect) = told.get("connect") {
        words.push(connect_for_people(connect));
    }
    words.extend(text("topic"));
    for (name, label) in [
        ("topic_alias", "alias"),
        ("qos", "QoS"),
        ("packet_id", "id"),
        ("expiry_seconds", "expires in s"),
    ] {
        let value = told.get(name).and_then(Value::as_u64);
        words.extend(value.map(|value| format!("{label} {value}")));
    }
    for (name, word) in [
        ("retain", "retain"),
        ("dup", "dup"),
        ("session_present", "session present"),
    ] {
        let is_so = told.get(name).and_then(Value::as_bool) == Some(true);
        words.extend(is_so.then(|| word.to_owned()));
    }
    words.extend(list(told, "filters", |it| {
        let filter = harmless(it.get("filter").and_then(Value::as_str)?);
        let qos = it.get("qos").and_then(Value::as_u64);
        Some(qos.map_or(filter.clone(), |qos| format!("{filter} (QoS {qos})")))
    }));
    words.extend(list(told, "reasons", |it| it.as_str().map(harmless)));
    words.extend(text("reason"));
    words.extend(text("method").map(|method| format!("method {method}")));
    let size = told.get("payload_bytes").or(told.get("packet_bytes"));
    words.extend(size.and_then(Value::as_u64).map(bytes));
    words.extend(text("payload").map(|payload| format!("\"{payload}\"")));
    words.extend(text("payload_base64").map(|payload| format!("base64 {payload}")));
    words.extend(text("error").map(|error| format!("broken: {error}")));
    words.join(" ")
}

/// What stands in a list, and how many are missing.
fn list(told: &Value, name: &str, each: impl Fn(&Value) -> Option<String>) -> Option<String> {
    let rows = told.get(name)?.as_array()?;
    let mut rows: Vec<_> = rows.iter().filter_map(each).collect();
    let left_out = told.get("filters_left_out").and_then(Value::as_u64);
    rows.extend(left_out.map(|count| format!("and {count} more")));
    Some(rows.join(", "))
}

fn connect_for_people(connect: &Value) -> String {
    let text = |name: &str| connect.get(name).and_then(Value::as_str).map(harmless);
    let seconds = |name: &str| connect.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mut words = vec![format!("MQTT {}", text("version").unwrap_or_default())];
    if connect.get("clean_start").and_then(Value::as_bool) == Some(true) {
        words.push("clean".to_owned());
    }
    words.push(format!("keep alive {} s", seconds("keep_alive_seconds")));
    for (name, label) in [
        ("user", "user"),
        ("will_topic", "will"),
        ("method", "method"),
    ] {
        words.extend(text(name).map(|value| format!("{label} {value}")));
    }
    words.join(", ")
}

/// The time of a day.
fn time(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1_000, at_ms % 1_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{ms:03}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_packet_is_a_line_that_moves_nothing_on_a_terminal() {
        let told = json!({
            "kind": "packet", "at_ms": 86_399_007, "shard": 0, "client_id": "c\u{1b}[2J",
            "address": "127.0.0.1:7", "from": "client", "packet": "PUBLISH", "packet_bytes": 20,
            "topic": "a/b", "qos": 1, "packet_id": 7, "retain": true, "dup": false,
            "payload_bytes": 5, "payload": "hello",
        });
        assert_eq!(
            for_people(&told),
            "23:59:59.007 c\\u{1b}[2J 127.0.0.1:7 > PUBLISH a/b QoS 1 id 7 retain 5 B \"hello\""
        );
        let told = json!({
            "at_ms": 0, "client_id": null, "address": null, "from": "broker", "packet": "SUBACK",
            "packet_id": 1, "reasons": ["Granted QoS 0"], "filters_left_out": 3, "packet_bytes": 5,
        });
        assert_eq!(
            for_people(&told),
            "00:00:00.000 - - < SUBACK id 1 Granted QoS 0, and 3 more 5 B"
        );
    }

    #[test]
    fn what_is_followed_stands_in_the_path() {
        let args = TraceArgs {
            reach: ReachArgs::default(),
            client_id: None,
            address: None,
            topic: Some("a/#".to_owned()),
            seconds: Some(5),
            lines: None,
            payload_bytes: None,
        };
        assert_eq!(args.path(), "/trace?topic=a%2F%23&seconds=5");
    }
}
