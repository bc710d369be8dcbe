//! Who is slow, who is loud, and how fast everything goes: live on a terminal, or once for scripts.
//!
//! ```text
//!   broker ─► reading ─► figures (two readings) ─► board ─► screen, on a terminal
//!                                                 └──────► a text or JSON, once
//! ```
//! A broker that goes away stays on the screen as it was last seen, with why nothing newer is told, and is
//! asked again: when it is back, it goes on.

pub mod board;
pub mod figures;
pub mod listing;
pub mod reading;
pub mod screen;
pub mod terminal;

use super::line::Line;
use super::reach::ReachArgs;
use super::table::{Column, Form, sheet, table};
use super::{Answer, Failure};
use board::{Board, Wish};
use clap::Args;
use figures::Figures;
use listing::{Kind, micros, written};
use reading::{Asker, Reading};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use terminal::{Happened, Screen};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Where the broker is, and how often it is asked.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Tell once, of as long a time, and end: so does --json, and if output is no terminal, or TERM is dumb
    #[arg(long)]
    pub once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    pub every: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    let (min, max) = (
        board::EVERY_MIN.as_secs_f64(),
        board::EVERY_MAX.as_secs_f64(),
    );
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (min..=max).contains(seconds));
    seconds.ok_or_else(|| format!("not between {min} and {max}"))
}

/// Tells once, or shows it until somebody quits.
pub(super) async fn top(line: &Line, args: &TopArgs) -> Result<Answer, Failure> {
    let every = Duration::from_secs_f64(args.every);
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let is_seen = is_terminal && !is_dumb(std::env::var_os("TERM").as_deref());
    match args.once || args.reach.json || !is_seen {
        true => once(line, every).await,
        false => live(line, every).await,
    }
}

/// Whether a terminal has no places to write at.
fn is_dumb(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| term == "dumb")
}

async fn once(line: &Line, every: Duration) -> Result<Answer, Failure> {
    let mut asker = Asker::new(line);
    let before = asker.read().await?;
    tokio::time::sleep(every).await;
    let mut board = Board::new(line.at().to_string(), every);
    board.take(before);
    board.take(asker.read().await?);
    let reading = board.reading.as_ref();
    Ok(Answer {
        text: text(&board),
        json: reading.map_or(Value::Null, |reading| whole(&board.figures, reading)),
        ..Answer::default()
    })
}

fn whole(figures: &Figures, reading: &Reading) -> Value {
    let mut whole = json!(figures);
    whole["status"] = json!(reading.status);
    if let (Some(whole), Value::Object(top)) = (whole.as_object_mut(), json!(reading.top)) {
        whole.extend(top);
    }
    whole
}

/// The board for people who see it once.
fn text(board: &Board) -> String {
    let figures = &board.figures;
    let rate = |rate, form| Value::String(format!("{}/s", written(rate, form)));
    let rates = json!({
        "received": rate(figures.received_per_second, listing::Form::Count),
        "sent": rate(figures.sent_per_second, listing::Form::Count),
        "bytes received": rate(figures.bytes_received_per_second, listing::Form::Bytes),
        "bytes sent": rate(figures.bytes_sent_per_second, listing::Form::Bytes),
        "lost": rate(figures.dropped_per_second, listing::Form::Count),
        "refused": rate(figures.refused_per_second, listing::Form::Count),
    });
    let fields = [
        "received",
        "sent",
        "bytes received",
        "bytes sent",
        "lost",
        "refused",
    ];
    let fields = fields.map(|name| Column(name, name, Form::Text));
    let took = |took: Option<u64>| took.map_or_else(|| "> 8 s".to_owned(), micros);
    let latencies = figures.latencies.iter().map(|latency| {
        json!({
            "LATENCY UP TO": latency.what,
            "P50": took(latency.p50), "P99": took(latency.p99), "P99.9": took(latency.p999),
            "SAMPLES": latency.samples,
        })
    });
    let heads = ["LATENCY UP TO", "P50", "P99", "P99.9", "SAMPLES"];
    let mut parts = vec![
        sheet(&fields, &rates),
        table(&columns(&heads), &latencies.collect::<Vec<_>>()),
    ];
    let [slow, clients, topics, shards] = Kind::ALL;
    let lists = [shards, slow, clients, topics].map(|kind| list(board, kind));
    parts.extend(lists);
    parts.join("\n")
}

/// The first to the left, all others to the right.
fn columns(heads: &[&'static str]) -> Vec<Column> {
    let columns = heads.iter().enumerate();
    let columns = columns.map(|(place, head)| {
        let form = if place == 0 { Form::Text } else { Form::Count };
        Column(head, head, form)
    });
    columns.collect()
}

fn list(board: &Board, kind: Kind) -> String {
    let mut heads = vec![kind.title()];
    heads.extend(kind.columns().iter().map(|column| column.0));
    let rows = board.rows(kind).into_iter().map(|row| {
        let mut told = json!({ kind.title(): row.name });
        for (value, listing::Column(head, _, form)) in row.numbers.iter().zip(kind.columns()) {
            told[*head] = json!(written(*value, *form));
        }
        told
    });
    table(&columns(&heads), &rows.collect::<Vec<_>>())
}

/// Reads whenever it is told to, so that keys are heard meanwhile.
async fn read_on(
    mut asker: Asker,
    mut asks: Receiver<()>,
    tells: Sender<Result<Reading, Failure>>,
) {
    while asks.recv().await.is_some() {
        if tells.send(asker.read().await).await.is_err() {
            return;
        }
    }
}

async fn live(line: &Line, every: Duration) -> Result<Answer, Failure> {
    let mut asker = Asker::new(line);
    let mut board = Board::new(line.at().to_string(), every);
    // What fails here is told on the terminal as it is.
    board.take(asker.read().await?);
    let unusable =
        |error: io::Error| Failure::Failed(format!("the terminal is not usable: {error}"));
    let events = terminal::events().map_err(unusable)?;
    let mut screen = Screen::enter().map_err(unusable)?;
    let (asks, heard) = mpsc::channel(1);
    let (tells, told) = mpsc::channel(1);
    tokio::spawn(read_on(asker, heard, tells));
    let mut show = Show {
        board,
        asks,
        told,
        events,
        due: Instant::now() + every,
        is_asking: false,
    };
    let ended = show.go_on(&mut screen).await.map_err(unusable)?;
    match ended {
        Some(signal) => screen.end_by(signal),
        None => drop(screen),
    }
    Ok(Answer {
        is_told: true,
        ..Answer::default()
    })
}

/// The board while it is shown.
struct Show {
    board: Board,
    asks: Sender<()>,
    told: Receiver<Result<Reading, Failure>>,
    events: Receiver<Happened>,
    /// When the broker is asked next.
    due: Instant,
    is_asking: bool,
}

impl Show {
    /// Until somebody quits, or a signal ends it, which is the answer.
    async fn go_on(&mut self, screen: &mut Screen) -> io::Result<Option<i32>> {
        loop {
            screen.draw(|frame| screen::draw(&self.board, Instant::now(), frame))?;
            let rests = self.is_asking || self.board.is_paused;
            tokio::select! {
                () = tokio::time::sleep_until(self.due.into()), if !rests => self.ask(),
                Some(told) = self.told.recv() => self.take(told),
                happened = self.events.recv() => match happened {
                    Some(Happened::Key(key)) => match self.board.press(key) {
                        Wish::Show => self.due = self.due.min(Instant::now() + self.board.every),
                        Wish::Ask => self.ask(),
                        Wish::Suspend => screen.suspend()?,
                        Wish::Leave => return Ok(None),
                    },
                    Some(Happened::Resized) => {}
                    Some(Happened::Signal(signal)) => return Ok(Some(signal)),
                    Some(Happened::Gone) | None => return Ok(None),
                },
            }
        }
    }

    fn ask(&mut self) {
        self.is_asking = self.is_asking || self.asks.try_send(()).is_ok();
    }

    fn take(&mut self, told: Result<Reading, Failure>) {
        self.is_asking = false;
        let now = Instant::now();
        self.due = now + self.board.every;
        match told {
            Ok(_) if self.board.is_paused => {}
            Ok(reading) => self.board.take(reading),
            Err(failure) => self.board.miss(now, failure.text()),
        }
    }
}

#[cfg(test)]
mod tests;
