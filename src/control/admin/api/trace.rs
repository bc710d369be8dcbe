//! Packets followed live: one line of JSON each, for as long as they are taken and may be.
//!
//! ```text
//!   shards ─► queue of lines, which leaves out what finds no room ─► Following ─► chunks ─► who asked
//! ```
//! Every second that has nothing to tell has a line of its own: who has gone is noticed by it.

use super::Answers;
use super::clients::read_network;
use super::problem::{Problem, Query};
use super::subscriptions::check_filter;
use crate::control::admin::counts::AdminCounts;
use crate::control::admin::door::Caller;
use crate::control::admin::tokens::Role;
use crate::control::config::TraceBounds;
use crate::engine::trace::Followed;
use crate::shard::inquiries::{Asked, Told};
use crate::shard::trace::{Feed, TraceOrder, TraceRow};
use axum::Extension;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver, Sender};
use utoipa::{IntoParams, ToSchema};

/// JSON, one value a line.
const JSON_LINES: &str = "application/jsonl";
/// After so long without a packet it is said that there is none.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Packets that are written at once.
const ROWS_MAX: usize = 256;
/// Shards may go on for so long behind the end: a trace does not end early for one of them.
const GRACE: Duration = Duration::from_secs(1);

/// What to follow: a client, an address or a topic filter.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// This client, also if it is not there yet.
    client: Option<String>,
    /// Clients at this address, or in this network (ADDRESS/BITS).
    address: Option<String>,
    /// Messages whose topics match this filter, from publishers and to subscribers.
    topic: Option<String>,
    /// For so long; `admin.trace_seconds_max`, if it is not said.
    #[param(minimum = 1)]
    seconds: Option<u64>,
    /// So many lines; `admin.trace_lines_max`, if it is not said.
    #[param(minimum = 1)]
    lines: Option<u64>,
    /// So many bytes of each payload are told, which takes the role operate; none, if it is not said.
    #[param(minimum = 0)]
    payload_bytes: Option<usize>,
}

/// A line of a trace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum TraceLine {
    /// The first: from now on packets are followed.
    Begin {
        /// Seconds after which it ends.
        seconds: u64,
        /// Lines after which it ends.
        lines: u64,
        /// Shards that did not answer: their packets are missing.
        silent_shards: Vec<u16>,
    },
    /// A packet.
    Packet(Box<TraceRow>),
    /// For a second there was none, or lines found no room.
    Status(TraceCounts),
    /// The last.
    End {
        /// Why it ends.
        why: &'static str,
        /// What there was.
        #[serde(flatten)]
        counts: TraceCounts,
    },
}

/// How much was told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct TraceCounts {
    /// Packets that were told.
    lines: u64,
    /// Packets that found no room: they came faster than they were taken.
    left_out: u64,
}

/// What is asked for, within what may be.
struct Wanted {
    followed: Followed,
    target: String,
    seconds: u64,
    lines: u64,
    payload_bytes_max: usize,
}

impl Wanted {
    fn of(which: Which, answers: &Answers) -> Result<Self, Problem> {
        let bounds = answers.trace_bounds();
        let (followed, target) = followed(&which, answers)?;
        let within = |name: &str, said: Option<u64>, key: &str, max: u64| {
            let said = said.unwrap_or(max);
            match (1..=max).contains(&said) {
                true => Ok(said),
                false => Err(Problem::wrong(format!(
                    "{name} is not between 1 and {max} ({key})"
                ))),
            }
        };
        let payload_bytes_max = which.payload_bytes.unwrap_or(0);
        if payload_bytes_max > bounds.payload_bytes_max {
            return Err(Problem::wrong(format!(
                "payload_bytes is more than {} (admin.trace_payload_bytes_max)",
                bounds.payload_bytes_max
            )));
        }
        let TraceBounds {
            seconds_max,
            lines_max,
            ..
        } = bounds;
        Ok(Wanted {
            followed,
            target,
            seconds: within(
                "seconds",
                which.seconds,
                "admin.trace_seconds_max",
                seconds_max,
            )?,
            lines: within("lines", which.lines, "admin.trace_lines_max", lines_max)?,
            payload_bytes_max,
        })
    }
}

/// What to follow, also in words.
fn followed(which: &Which, answers: &Answers) -> Result<(Followed, String), Problem> {
    match (&which.client, &which.address, &which.topic) {
        (Some(client), None, None) => Ok((
            Followed::Client(client.as_str().into()),
            format!("client {client}"),
        )),
        (None, Some(address), None) => Ok((
            Followed::Network(read_network(address)?),
            format!("address {address}"),
        )),
        (None, None, Some(topic)) => {
            check_filter(answers, topic)?;
            let filter = topic.as_str().into();
            Ok((Followed::Topic(filter), format!("topic {topic}")))
        }
        _ => Err(Problem::wrong(
            "say one of client, address and topic, and no more".to_owned(),
        )),
    }
}

/// A trace that counts among those that run.
struct Place {
    counts: Arc<AdminCounts>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        AdminCounts::take(&self.counts.traces);
    }
}

impl Answers {
    fn place(&self) -> Result<Place, Problem> {
        let max = self.trace_bounds().traces_max;
        let full = || {
            let text = format!(
                "{max} traces run already, and no more may (admin.traces_max); end one of them"
            );
            Problem::new(StatusCode::TOO_MANY_REQUESTS, text)
        };
        let (place, counts) = self.enter_traces().ok_or_else(full)?;
        AdminCounts::add(&counts.traces);
        Ok(Place {
            counts,
            _place: place,
        })
    }

    /// Has shards follow, and tells what they see.
    async fn follow(&self, wanted: Wanted) -> Result<Receiver<Bytes>, Problem> {
        let place = self.place()?;
        let (to, rows) = mpsc::channel(self.trace_bounds().queue_max);
        let left_out = Arc::new(AtomicU64::new(0));
        let ends_at = Instant::now() + Duration::from_secs(wanted.seconds);
        let asked = Asked::Trace(TraceOrder {
            followed: wanted.followed,
            payload_bytes_max: wanted.payload_bytes_max,
            until: ends_at + GRACE,
            feed: Feed::new(to, Arc::clone(&left_out)),
        });
        let gathered = self.ask_shards(asked, None).await?;
        let mut told = gathered.told.iter();
        if !told.any(|(_, told)| matches!(told, Told::Done(true))) {
            return Err(Problem::silent(&gathered.silent));
        }
        let (chunks, answer) = mpsc::channel(1);
        let following = Following {
            rows,
            left_out,
            counts: TraceCounts::default(),
            lines_max: wanted.lines,
            ends_at,
            chunks,
            _place: place,
        };
        let begin = TraceLine::Begin {
            seconds: wanted.seconds,
            lines: wanted.lines,
            silent_shards: gathered.silent,
        };
        tokio::spawn(following.run(begin));
        Ok(answer)
    }
}

/// One trace on its way to who asked for it.
struct Following {
    rows: Receiver<TraceRow>,
    left_out: Arc<AtomicU64>,
    counts: TraceCounts,
    lines_max: u64,
    ends_at: Instant,
    chunks: Sender<Bytes>,
    _place: Place,
}

impl Following {
    /// Until it ends, or nobody takes it any more.
    async fn run(mut self, begin: TraceLine) {
        let mut text = Vec::new();
        write(&mut text, &begin);
        let mut rows = Vec::new();
        let mut is_over = false;
        // The receiver is dropped by an asker that has gone.
        while self
            .chunks
            .send(std::mem::take(&mut text).into())
            .await
            .is_ok()
            && !is_over
        {
            let left = self.ends_at.saturating_duration_since(Instant::now());
            let room = self.lines_max.saturating_sub(self.counts.lines);
            let max = usize::try_from(room).map_or(ROWS_MAX, |room| room.min(ROWS_MAX));
            let comes = self.rows.recv_many(&mut rows, max);
            let came = tokio::time::timeout(left.min(STATUS_INTERVAL), comes).await;
            self.counts.lines += rows.len() as u64;
            for row in rows.drain(..) {
                write(&mut text, &TraceLine::Packet(Box::new(row)));
            }
            let left_out = self.left_out.load(Ordering::Relaxed);
            let is_news = left_out != self.counts.left_out || text.is_empty();
            self.counts.left_out = left_out;
            if let Some(why) = self.end(came) {
                let counts = self.counts;
                write(&mut text, &TraceLine::End { why, counts });
                is_over = true;
            } else if is_news {
                write(&mut text, &TraceLine::Status(self.counts));
            }
        }
    }

    /// Why it is over, if it is.
    fn end<E>(&self, came: Result<usize, E>) -> Option<&'static str> {
        if self.counts.lines >= self.lines_max {
            Some("it has as many lines as it may have")
        } else if Instant::now() >= self.ends_at {
            Some("its time is over")
        } else if matches!(came, Ok(0)) {
            Some("the shards have stopped")
        } else {
            None
        }
    }
}

fn write(text: &mut Vec<u8>, line: &TraceLine) {
    // Nothing in it has another form than JSON has.
    if serde_json::to_writer(&mut *text, line).is_ok() {
        text.push(b'\n');
    }
}

/// Chunks as they come.
struct Chunks(Receiver<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(context);
        next.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Packets of a client, of an address or to a topic as they come and go, one line of JSON each, until who
/// asks leaves or a bound is reached. No password, no data of an authentication and no payload of a will is
/// told.
#[utoipa::path(get, path = "/api/v1/trace", tag = "clients", params(Which), responses(
    (status = 200, body = TraceLine, content_type = "application/jsonl"),
    (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub(super) async fn trace(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let wanted = Wanted::of(which, &answers)?;
    let role = match wanted.payload_bytes_max {
        0 => Role::View,
        _ => Role::Operate,
    };
    let target = wanted.target.clone();
    let what = ("trace", target.as_str());
    let follows = answers.follow(wanted);
    let chunks = answers.change((&caller, role), what, follows).await?;
    let mut response = Body::new(Chunks(chunks)).into_response();
    let kind = HeaderValue::from_static(JSON_LINES);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
