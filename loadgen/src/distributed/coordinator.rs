//! The one who asks: hands out the task, lets all begin at one moment, gathers what they found.

use super::share::{Share, merge};
use super::{Answer, Order, Task, receive, send};
use crate::outcome::{Outcome, Second};
use crate::plan::Plan;
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// How often somebody is asked whether the run should stop.
const LOOK: Duration = Duration::from_millis(20);
/// Options that are only of the one who asks; the second says whether a value follows.
const OWN: [(&str, bool); 8] = [
    ("--workers", true),
    ("--json", false),
    ("--quiet", false),
    ("--seed", true),
    ("--broker", true),
    ("--user", true),
    ("--password-file", true),
    ("--slo", true),
];

/// The command line without what is only of the one who asks.
fn words() -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or_default();
        match OWN.iter().find(|(own, _)| *own == name) {
            None => kept.push(word),
            Some((_, true)) if !word.contains('=') => drop(words.next()),
            Some(_) => {}
        }
    }
    kept
}

/// Lets `workers` make the load, and adds up what they found.
///
/// # Errors
/// A message that names the worker that cannot be reached or does not do it.
pub fn gather(
    plan: Plan,
    broker: &str,
    workers: &[String],
    interrupt: &AtomicBool,
    observer: &mut dyn FnMut(&Second),
) -> Result<Outcome, String> {
    let (told, answers) = channel();
    let mut streams = Vec::new();
    for (nth, address) in workers.iter().enumerate() {
        let named = |error: std::io::Error| format!("cannot reach worker {address}: {error}");
        let mut stream = TcpStream::connect(address).map_err(named)?;
        let task = Task {
            loadgen: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("LOADGEN_COMMIT").to_owned(),
            words: words(),
            broker: broker.to_owned(),
            user: plan.settings.user.clone(),
            password: plan.settings.password.clone(),
            seed: plan.seed.wrapping_add(nth as u64),
        };
        send(&mut stream, &Order::Load(task)).map_err(named)?;
        listen(nth, stream.try_clone().map_err(named)?, told.clone());
        streams.push(stream);
    }
    let shares = Gathering {
        streams,
        answers,
        shares: workers.iter().map(|_| None).collect(),
        is_stopping: false,
    }
    .conduct(interrupt, workers)?;
    let (outcome, seconds) = merge(plan, workers.iter().cloned().zip(shares).collect());
    for second in &seconds {
        observer(second);
    }
    Ok(outcome)
}

/// Hands on what a worker says; nothing when it is gone.
fn listen(nth: usize, stream: TcpStream, told: Sender<(usize, Option<Answer>)>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        loop {
            let answer = receive(&mut reader).unwrap_or(None);
            let is_over = answer.is_none();
            if told.send((nth, answer)).is_err() || is_over {
                return;
            }
        }
    });
}

struct Gathering {
    streams: Vec<TcpStream>,
    answers: Receiver<(usize, Option<Answer>)>,
    shares: Vec<Option<Share>>,
    is_stopping: bool,
}

impl Gathering {
    fn conduct(mut self, interrupt: &AtomicBool, workers: &[String]) -> Result<Vec<Share>, String> {
        let mut ready = 0;
        while self.shares.iter().any(Option::is_none) {
            if interrupt.load(Ordering::Relaxed) {
                self.stop();
            }
            let Ok((nth, answer)) = self.answers.recv_timeout(LOOK) else {
                continue;
            };
            match answer {
                Some(Answer::Ready) => ready += 1,
                Some(Answer::Refused(why)) => {
                    return Err(format!("worker {}: {why}", workers[nth]));
                }
                Some(Answer::Found(share)) => {
                    // One that could not go on keeps the others from making a load of another size.
                    if share.end.failure.is_some() {
                        self.stop();
                    }
                    self.shares[nth] = Some(*share);
                }
                None if self.shares[nth].is_none() => {
                    self.shares[nth] = Some(Share::missing("it is gone".into()));
                    self.stop();
                }
                None => {}
            }
            if ready == self.streams.len() {
                ready = 0;
                self.tell(&Order::Go);
            }
        }
        Ok(self.shares.into_iter().flatten().collect())
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            self.tell(&Order::Stop);
        }
    }

    fn tell(&mut self, order: &Order) {
        for stream in &mut self.streams {
            // One that is gone is noticed by its reader.
            let _ = send(stream, order);
        }
    }
}
