//! A worker: waits for a task, makes the load, says what it found; then waits for the next.

use super::share::Share;
use super::{Answer, Order, Task, receive, send};
use crate::args::{Args, Command};
use crate::outcome::Second;
use crate::plan::Plan;
use crate::run::{self, Surroundings};
use clap::Parser;
use std::io::BufReader;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// How long somebody who has connected may take to say what to do; others wait for it.
const TASK_MAX: Duration = Duration::from_secs(10);

/// Serves one task after the other until the process is stopped.
///
/// # Errors
/// A message that names the address that cannot be listened on.
pub fn serve(listen: SocketAddr) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{listen}: {error}");
    let listener = TcpListener::bind(listen).map_err(named)?;
    let address = listener.local_addr().map_err(named)?;
    eprintln!("the worker listens on {address}");
    for stream in listener.incoming() {
        let peer = stream.and_then(serve_one);
        if let Err(error) = peer {
            eprintln!("loadgen: the one who asked is gone: {error}");
        }
    }
    Ok(())
}

fn serve_one(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    stream.set_read_timeout(Some(TASK_MAX))?;
    let Some(Order::Load(task)) = receive(&mut reader)? else {
        return Ok(());
    };
    stream.set_read_timeout(None)?;
    let plan = match plan(task) {
        Ok(plan) => plan,
        Err(why) => return send(&mut stream, &Answer::Refused(why)),
    };
    let interrupt = Arc::new(AtomicBool::new(false));
    let (told, orders) = channel();
    listen(reader, told, interrupt.clone());
    let mut seconds = Vec::new();
    let mut writer = stream.try_clone()?;
    let mut gate = || wait_for_all(&mut writer, &orders);
    let surroundings = Surroundings {
        broker: None,
        interrupt: &interrupt,
        observer: &mut |second: &Second| seconds.push(second.clone()),
        gate: Some(&mut gate),
    };
    let answer = match run::run(plan, surroundings) {
        Ok(outcome) => Answer::Found(Box::new(Share::new(outcome, seconds))),
        Err(why) => Answer::Refused(why),
    };
    send(&mut stream, &answer)
}

/// What a worker says is ready, and waits for; false when somebody has stopped the run.
fn wait_for_all(stream: &mut TcpStream, orders: &Receiver<()>) -> bool {
    send(stream, &Answer::Ready).is_ok() && orders.recv().is_ok()
}

/// Hands on each `Go`; a `Stop`, or the end, interrupts the run.
fn listen(mut reader: BufReader<TcpStream>, told: Sender<()>, interrupt: Arc<AtomicBool>) {
    thread::spawn(move || {
        while let Ok(Some(Order::Go)) = receive(&mut reader) {
            if told.send(()).is_err() {
                break;
            }
        }
        interrupt.store(true, Ordering::Relaxed);
    });
}

fn plan(task: Task) -> Result<Plan, String> {
    let own = (env!("CARGO_PKG_VERSION"), env!("LOADGEN_COMMIT"));
    if (task.loadgen.as_str(), task.commit.as_str()) != own {
        return Err(format!("it is loadgen {} {}, not yours", own.0, own.1));
    }
    let broker = format!("--broker={}", task.broker);
    let words = ["loadgen".to_owned()].into_iter().chain(task.words);
    let parsed = Args::try_parse_from(words.chain([broker])).map_err(|error| error.to_string())?;
    if matches!(parsed.command, Command::Worker(_)) {
        return Err("a worker makes a load, and no worker".into());
    }
    let (mut settings, groups) = crate::workload(&parsed.command)
        .ok_or("this is no load")?
        .map_err(|why| why.to_string())?;
    if settings.command.is_some() {
        return Err("a worker runs no commands that others send (restart --command)".into());
    }
    settings.user = task.user;
    settings.password = task.password;
    Plan::new(settings, groups, task.seed)
}
