//! Several generators, on one machine or many, make one load: `loadgen worker --listen` on each, and
//! `--workers A,B,C` on the one that asks for it.
//!
//! Each makes the whole load that the command names, with topics and clients of its own, so that no clock
//! is compared with another machine's. All begin to connect, and then to publish, at one moment. Counts and
//! histograms are added up, not percentiles; each generator is judged by its own limits.

mod coordinator;
mod served;
mod share;

pub use coordinator::gather;
pub use served::serve;

use serde::{Deserialize, Serialize};
use share::Share;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

/// From the one who asks.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// What to do.
    Load(Task),
    /// Go on: everybody is as far as you are.
    Go,
    /// Stop, and say what was found.
    Stop,
}

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// Both sides speak the same, or not at all.
    loadgen: String,
    commit: String,
    /// The command line, without what is only of the one who asks.
    words: Vec<String>,
    broker: String,
    user: Option<String>,
    password: Option<String>,
    seed: u64,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It can go on when everybody can.
    Ready,
    /// It cannot do this.
    Refused(String),
    /// What it found.
    Found(Box<Share>),
}

fn send(stream: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message).map_err(io::Error::other)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// The next message; nothing at the end.
fn receive<T: for<'a> Deserialize<'a>>(from: &mut BufReader<TcpStream>) -> io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .map_err(io::Error::other)
}
