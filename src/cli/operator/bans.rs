//! Who is not served: seen, banned for a time, let in again.
//!
//! Not here: bans without an end, which stand in `bans.file`.

use super::line::Line;
use super::lists::encoded;
use super::reach::ReachArgs;
use super::table::{Column, Form, harmless, seconds, table};
use super::{Answer, Failure};
use clap::{Args, value_parser};
use hyper::Method;
use serde_json::{Map, Value};

/// Longest ban for a time, as the API has it: a year.
const SECONDS_MAX: u64 = 31_536_000;

/// Which bans.
#[derive(Clone, Debug, Args)]
pub struct BansArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
}

/// Who is meant.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Whom {
    /// A client identifier
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// A user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// An address, or a network (ADDRESS/BITS)
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
}

/// Whom to ban, and how long.
#[derive(Clone, Debug, Args)]
pub struct BanArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// One of these
    #[command(flatten)]
    pub whom: Whom,
    /// How long, as 90s, 15m, 2h or 7d, a year at most; bans without an end stand in bans.file
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub seconds: u64,
}

/// Whom to let in again.
#[derive(Clone, Debug, Args)]
pub struct UnbanArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// One of these; of a client that is listed with its user or address, all that is listed
    #[command(flatten)]
    pub whom: Whom,
}

/// A time of a number and a unit, in seconds.
fn duration(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(number.len()..) {
        Some("s" | "") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => return Err("its unit is none of s, m, h and d".to_owned()),
    };
    let seconds = number.parse::<u64>().ok();
    let seconds = seconds.and_then(|number| number.checked_mul(unit));
    let fits = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
    fits.ok_or_else(|| "it is not between 1s and 365d".to_owned())
}

impl Whom {
    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [
            ("client_id", &self.client_id),
            ("user", &self.user),
            ("address", &self.address),
        ];
        let fields = fields.into_iter();
        fields.filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// As the API is told of it.
    fn body(&self) -> Map<String, Value> {
        self.fields()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }

    fn done(&self, done: &str, mut json: Map<String, Value>) -> Answer {
        let called = |name: &str| match name {
            "client_id" => "client",
            "user" => "user",
            _ => "address",
        };
        let words: Vec<_> = self
            .fields()
            .map(|(name, value)| format!("{} {}", called(name), harmless(value)))
            .collect();
        json.insert("done".to_owned(), true.into());
        Answer {
            text: format!("{}: {done}\n", words.join(", ")),
            json: Value::Object(json),
            ..Answer::default()
        }
    }
}

/// Bans in force.
pub(super) async fn bans(line: &mut Line, args: &BansArgs) -> Result<Answer, Failure> {
    let columns = [
        Column("CLIENT", "client_id", Form::Text),
        Column("USER", "user", Form::Text),
        Column("ADDRESS", "address", Form::Text),
        Column("ENDS IN", "ends_in_seconds", Form::Seconds),
    ];
    let json = line.get(&format!("/bans?limit={}", args.limit)).await?;
    let mut rows = json.get("bans").and_then(Value::as_array).cloned();
    let rows = rows.get_or_insert_default();
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        if row.get("ends_in_seconds").is_none_or(Value::is_null) {
            row.insert("ends_in_seconds".to_owned(), "never (bans.file)".into());
        }
    }
    let (shown, count) = (rows.len(), json.get("count").and_then(Value::as_u64));
    let count = count.unwrap_or_default();
    let mut answer = Answer {
        text: table(&columns, rows),
        json,
        ..Answer::default()
    };
    if count > shown as u64 {
        let text = format!("these are {shown} of {count} bans; there are more with --limit");
        answer.remarks.push(text);
    }
    Ok(answer)
}

/// Bans somebody for a time.
pub(super) async fn ban(line: &mut Line, args: &BanArgs) -> Result<Answer, Failure> {
    let mut body = args.whom.body();
    body.insert("seconds".to_owned(), args.seconds.into());
    let asked = Value::Object(body.clone());
    line.ask(Method::POST, "/bans", Some(&asked)).await?;
    let text = format!("banned for {}", seconds(args.seconds));
    Ok(args.whom.done(&text, body))
}

/// Ends a ban for a time.
pub(super) async fn unban(line: &mut Line, args: &UnbanArgs) -> Result<Answer, Failure> {
    let fields = args.whom.fields();
    let query: Vec<_> = fields
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let path = format!("/bans?{}", query.join("&"));
    line.ask(Method::DELETE, &path, None).await?;
    Ok(args.whom.done("the ban has ended", args.whom.body()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, wanted) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("2h", 7_200),
            ("365d", SECONDS_MAX),
        ] {
            assert_eq!(duration(text), Ok(wanted), "{text}");
        }
        for wrong in [
            "",
            "0",
            "h",
            "-1s",
            "1w",
            "366d",
            "1.5h",
            "1 h",
            "99999999999999999999d",
            "9é",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
