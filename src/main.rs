//! The `ringmq` program: read the configuration, start the shards, wait for signals, stop in order.
//!
//! Exit codes: 0 after a stop that was asked for, 1 if the broker cannot start or go on, or another command
//! fails, 2 if command line, configuration or a file that it names are wrong.

use clap::{CommandFactory, Parser};
use crossbeam_channel::{Receiver, Sender};
use ringmq::cli::bench_storage::{self, BenchStorageArgs, Report};
use ringmq::cli::flags::{Cli, Command};
use ringmq::cli::operator::difference::CheckConfigArgs;
use ringmq::cli::{import, operator, pages, passwd, store, token};
use ringmq::control::admin;
use ringmq::control::admin::desk::{self, Desk};
use ringmq::control::admin::kept::{Kept, ShownConfig};
use ringmq::control::bridges::{Bridges, Prepared};
use ringmq::control::cgroup::Bounds;
use ringmq::control::check;
use ringmq::control::config::{AdminConfig, Config, ConfigError, Flags, Source};
use ringmq::control::judges::{self, Judges};
use ringmq::control::listening::Listening;
use ringmq::control::log;
use ringmq::control::machine::{self, MachineError, MemoryShare};
use ringmq::control::memory::MemoryWatch;
use ringmq::control::overview::Ask;
use ringmq::control::plane::{ControlPlane, Ears, Leaving, Telling};
use ringmq::control::reload::Files;
use ringmq::control::running::Running;
use ringmq::control::service;
use ringmq::control::watch::audit::AuditLog;
use ringmq::control::watch::bans::{Bans, Who};
use ringmq::control::watch::{self, Record, Records};
use ringmq::shard::account::Entry;
use ringmq::shard::boot::{Rules, Shards};
use ringmq::shard::listener::{LISTENS_ON_MAX, Listener, ListenerSetup, Place, SocketBounds};
use ringmq::shard::meter::ProcessMeter;
use ringmq::shard::question_queue::{self, question_queue};
use ringmq::shard::ring::heap::{self, Heap};
use ringmq::storage::directory::{self, DirectoryError};
use ringmq::storage::log::writer::WriterConfig;
use sd_notify::NotifyState;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ,
};
use signal_hook::iterator::Signals;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// Questions to the authentication methods that may wait, ...
const QUESTIONS_MAX: usize = 1024;
/// ... and of one address.
const QUESTIONS_OF_ADDRESS_MAX: usize = 256;
/// Signals that are heard: what stops and reloads, and what would end the process but means nothing.
const SIGNALS: [i32; 10] = [
    SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ,
];
/// How often it is looked whether a thread has ended.
const AWAITS: Duration = Duration::from_millis(2);
/// Questions of operators that may wait.
const ASKS_MAX: usize = 64;
/// Signals that may wait to be heard.
const SIGNALS_MAX: usize = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let path = match &cli.command {
        Some(Command::Passwd(args)) => return tell(passwd::run(args)),
        Some(Command::Token(args)) => return tell(token::run(args)),
        Some(Command::Import(args)) => return import::run(args),
        Some(Command::BenchStorage(args)) => return tell(measure_disk(args)),
        Some(Command::Store(command)) => return store::run(command),
        Some(Command::Operator(command)) => return operator::run(command, configured),
        Some(Command::Man(args)) => return tell(pages::man(args, Cli::command())),
        Some(Command::Completions(args)) => {
            return tell(Ok::<_, String>(pages::completions(args, Cli::command())));
        }
        Some(Command::CheckConfig(args)) => Some(args.file.clone()),
        None => cli.config.clone(),
    };
    let bounds = machine::group_bounds();
    let source = source(path, cli.flags, &bounds);
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => {
            log::say(&error.to_string());
            return ExitCode::from(WRONG);
        }
    };
    if let Some(Command::CheckConfig(args)) = &cli.command {
        return check_config(args, &config, &bounds);
    }
    let places = check::check_places(&config);
    let started = places.and_then(|()| log::start(&config.log).map_err(|error| error.to_string()));
    if let Err(error) = started {
        log::say(&error);
        return ExitCode::from(WRONG);
    }
    let ended = run(source, config, &bounds);
    if let Err(error) = &ended {
        error!("{error}");
    }
    log::flush();
    let code = match &ended {
        Ok(()) => 0,
        Err(error) if error.is::<WrongFile>() => WRONG,
        Err(_) => FAILED,
    };
    // Not by returning: a shard that hangs must not hold up the end.
    std::process::exit(i32::from(code))
}

/// The broker cannot start or go on.
const FAILED: u8 = 1;
/// Command line, configuration or a file that it names are wrong.
const WRONG: u8 = 2;

/// A file that the configuration names cannot be used.
#[derive(Debug)]
struct WrongFile(String);

impl fmt::Display for WrongFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for WrongFile {}

impl WrongFile {
    fn new(error: impl ToString) -> Self {
        WrongFile(error.to_string())
    }
}

/// Says what is wrong with a configuration, and how a running broker's differs if that is asked.
fn check_config(args: &CheckConfigArgs, config: &Config, bounds: &Bounds) -> ExitCode {
    match check(config, bounds) {
        Ok(warnings) => warnings.iter().for_each(|warning| log::say(warning)),
        Err(error) => {
            log::say(&error.to_string());
            return ExitCode::from(WRONG);
        }
    }
    if args.against_running {
        return operator::compare(args, config);
    }
    answer("the configuration is correct");
    ExitCode::SUCCESS
}

/// What a start would refuse, beyond the configuration file itself; else what it would warn of.
fn check(config: &Config, bounds: &Bounds) -> Result<Vec<String>, Box<dyn Error>> {
    let files = Files::load(config)?;
    judges::Prepared::new(config)?;
    Prepared::load(config)?;
    check::check(config, &files)?;
    let mut warnings = machine_warnings(config, &memory_share(config, bounds), bounds);
    warnings.extend(check::warnings(config, &files));
    Ok(warnings)
}

/// Says something on standard output.
fn answer(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stdout(), "{text}");
}

/// What a command without a broker came to.
fn tell(ended: Result<impl ToString, impl ToString>) -> ExitCode {
    match ended {
        Ok(done) => {
            answer(&done.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn measure_disk(args: &BenchStorageArgs) -> Result<Report, String> {
    bench_storage::run(args).map_err(|error| format!("the disk cannot be measured: {error}"))
}

/// What the configuration is read from, now and again.
fn source(path: Option<PathBuf>, flags: Flags, bounds: &Bounds) -> Source {
    Source {
        path,
        flags,
        cpus_available: machine::cpus(),
        cpu_quota: bounds.cpu.clone(),
    }
}

/// Where a broker of that configuration answers operators.
fn configured(path: Option<&Path>) -> Result<AdminConfig, ConfigError> {
    let source = Source {
        path: path.map(Path::to_owned),
        ..Source::default()
    };
    source.load_admin()
}

fn run(source: Source, config: Config, bounds: &Bounds) -> Result<(), Box<dyn Error>> {
    prepare_heap();
    let running = running(source, config, bounds)?;
    let (config, settings) = (running.config(), running.settings());
    let signals = Signals::new(SIGNALS)?;
    let (questions_to, questions) = question_queue(queue_bounds(config));
    let (entries_to, entries) = crossbeam_channel::bounded(watch::RECORDS_MAX);
    let (records_to, taken) = crossbeam_channel::bounded(watch::RECORDS_MAX);
    let (misbehaving_to, misbehaving) = crossbeam_channel::bounded(watch::MISBEHAVING_MAX);
    let files = Files::load(config).map_err(WrongFile::new)?;
    // What cannot be opened refuses the start before anybody comes in.
    let methods = judges::Prepared::new(config).map_err(WrongFile)?;
    let (audit, bridges) = (open_audit(config)?, load_bridges(config)?);
    let kept = take_storage(config)?;
    let listeners = bind(config, &files)?;
    let places = places(&listeners);
    let admin = admin::bind(&config.admin, |_| false)?;
    let listening = listening(config, &listeners);
    let bans = Bans::of_file(files.bans());
    running.memory().check(config.least_memory())?;
    let meter = ProcessMeter::new(config.cpus.list.len());
    let shards = Shards::start(
        &config.cpus,
        &settings,
        listeners,
        &rules_in_force(config, &files, &bans),
        (&questions_to, &entries_to, &meter),
        kept,
    )?;
    // What is left of these are the shards' own: their end ends the account.
    drop(entries_to);
    // Before clients come, so that what they publish waits for the other broker.
    let sockets = SocketBounds::new(&config.settings.limits);
    let bridges = Bridges::start(bridges, sockets, &shards).map_err(no_thread)?;
    tell_start((&running, &files), bounds, &shards);
    let methods = methods.authenticators(config, &files, bans.in_force());
    let replies = shards.replies();
    let judges = Judges::start(config, methods, &questions, replies, &misbehaving_to);
    let judges = judges.map_err(no_thread)?;
    let records = Records::new(records_to);
    let audit = (audit, &listening);
    let watch = keep_account(config, audit, (entries, taken), misbehaving_to, &records)?;
    tell_places(config, &places);
    let (asks, desk, telling) = start_admin(admin, (&running, listening), &records, &files)?;
    let ears = Ears {
        signals: forward(signals)?,
        misbehaving,
        asks,
    };
    let control = ControlPlane::new(
        (&shards, ears),
        files,
        bans,
        records,
        (MemoryWatch::new(meter, &settings.limits), telling),
        (running, judges, desk),
        bridges,
    );
    // A service manager may wait for this; without one nothing happens.
    service::tell(NotifyState::Ready);
    let leaving = control.serve()?;
    stop(shards, &leaving, &watch)
}

fn prepare_heap() {
    heap::use_small_pages();
    heap::give_back_only_when_asked();
}

/// The configuration in force, where the machine will do.
fn running(source: Source, config: Config, bounds: &Bounds) -> Result<Running, MachineError> {
    let descriptors_left = check_machine(&config)?;
    let group_memory = bounds.memory.clone();
    Ok(Running::new(source, config, group_memory, descriptors_left))
}

fn rules_in_force(config: &Config, files: &Files, bans: &Bans) -> Rules {
    Rules {
        acl: files.acl(),
        names: bans.enforce_names(),
        networks: Arc::new(bans.networks()),
        ipv6_prefix_bits: config.bans.ipv6_prefix_bits,
    }
}

fn open_audit(config: &Config) -> Result<Option<AuditLog>, WrongFile> {
    let opened = config.audit_file.clone().map(AuditLog::open).transpose();
    opened.map_err(|error| WrongFile(format!("audit_file: {error}")))
}

fn load_bridges(config: &Config) -> Result<Prepared, WrongFile> {
    Prepared::load(config).map_err(WrongFile)
}

/// Listeners by their numbers.
fn listening(config: &Config, listeners: &[(Listener, ListenerSetup)]) -> Listening {
    let mut listening = Listening::default();
    let policies = config.listeners.iter().zip(&config.settings.listeners);
    for ((listener, _), (config, policy)) in listeners.iter().zip(policies) {
        listening.push(config, policy, &listener.place, listener.file.clone());
    }
    listening
}

/// Stops in order, with the files of sockets.
fn stop(shards: Shards, leaving: &Leaving, watch: &JoinHandle<()>) -> Result<(), Box<dyn Error>> {
    service::tell(NotifyState::Stopping);
    info!("stopping");
    let by = Instant::now() + leaving.within;
    shards.stop(leaving.within)?;
    for file in &leaving.files {
        if let Err(error) = file.remove() {
            debug!("a socket's file stays: {error}");
        }
    }
    await_end(watch, by);
    info!("stopped");
    Ok(())
}

/// Starts the threads that keep account of clients, where anybody wants that, now or later.
fn keep_account(
    config: &Config,
    (audit, listening): (Option<AuditLog>, &Listening),
    reports: (Receiver<Vec<Entry>>, Receiver<Record>),
    misbehaving_to: Sender<Who>,
    written: &Records,
) -> Result<JoinHandle<()>, String> {
    let audit = (audit, listening.names());
    let started = watch::start(audit, &config.bans, reports, misbehaving_to, written);
    started.map_err(no_thread)
}

/// What to say of a thread that the system does not give.
fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread: {error}. Raise the limit of threads (`ulimit -u`, TasksMax=)")
}

/// Waits until what was noted is written, on a disk that may hang.
fn await_end(watch: &JoinHandle<()>, by: Instant) {
    while !watch.is_finished() && Instant::now() < by {
        std::thread::sleep(AWAITS);
    }
}

fn tell_start((running, files): (&Running, &Files), bounds: &Bounds, shards: &Shards) {
    let (config, memory) = (running.config(), running.memory());
    let (version, cpus) = (env!("CARGO_PKG_VERSION"), &config.cpus.list);
    let count = cpus.len();
    if config.cpus.pinned {
        info!("ringmq {version} runs {count} shard(s) on CPUs {cpus:?}");
    } else {
        info!("ringmq {version} runs {count} shard(s), not pinned to CPUs");
    }
    if let Some(quota) = &config.cpu_quota {
        let cpus = quota.value as f64 / 1_000.0;
        info!("{count} shard(s): the CPU quota, {quota}, is {cpus} CPUs");
    }
    info!("{memory}");
    if let Some(storage) = &config.storage {
        let (path, sessions) = (storage.place.path.display(), shards.restored());
        if let Some(torn) = shards.torn() {
            warn!("{path}: {torn}");
        }
        info!("{sessions} session(s) are there again from {path} (storage.directory)");
    }
    let of_machine = machine_warnings(config, memory, bounds);
    for warning in of_machine.iter().chain(&check::warnings(config, files)) {
        warn!("{warning}");
    }
}

/// How much memory the broker takes.
fn memory_share(config: &Config, bounds: &Bounds) -> MemoryShare {
    let wanted = config.settings.limits.memory_max_bytes;
    MemoryShare::new(wanted, bounds.memory.as_ref())
}

/// What is configured and will not do on this machine.
fn machine_warnings(config: &Config, memory: &MemoryShare, bounds: &Bounds) -> Vec<String> {
    let shards = config.cpus.list.len();
    let mut warnings: Vec<String> = memory.warning().map(str::to_owned).into_iter().collect();
    if config.says_retained_bytes {
        warnings.extend(memory.retained_warning(config.settings.limits.retained_bytes_max));
    }
    warnings.extend(machine::shards_warning(shards, bounds.cpu.as_ref()));
    warnings
}

/// The directory of what is kept, if something is to be: another process may have it.
fn take_storage(
    config: &Config,
) -> Result<Option<(directory::Taken, WriterConfig)>, DirectoryError> {
    let Some(storage) = &config.storage else {
        info!(
            "sessions, queues and retained messages end with this process, which keeps them in \
             memory; storage.directory keeps them on disk"
        );
        return Ok(None);
    };
    let taken = directory::take(&storage.place)?;
    Ok(Some((taken, storage.writer)))
}

/// Whether it will do; returns how many descriptors are left for connections.
fn check_machine(config: &Config) -> Result<usize, MachineError> {
    machine::check_memlock()?;
    machine::check_threads(config.cpus.list.len())?;
    raise_descriptor_limit(config)
}

/// Returns how many descriptors are left for connections.
fn raise_descriptor_limit(config: &Config) -> Result<usize, MachineError> {
    let descriptors = machine::raise_descriptor_limit();
    let sockets = config.listeners.iter();
    let sockets = sockets.map(|listener| match &listener.place {
        Place::Tcp(tcp) => tcp.addresses.len(),
        Place::Unix(_) => 1,
    });
    let left = machine::check_descriptors(descriptors, config.cpus.list.len(), sockets.sum())?;
    let room = machine::make_room_for_descriptors(descriptors);
    debug!("up to {descriptors} open descriptors, room for {room} from the start");
    if (descriptors as usize) < config.settings.limits.connections_max.min(10_000) {
        warn!(
            "only {descriptors} descriptors may be open, which bounds the connections; \
             raise `ulimit -n` or LimitNOFILE="
        );
    }
    Ok(usize::try_from(left).unwrap_or(usize::MAX))
}

/// Where each listener is, and which of its addresses this machine lacks.
type Places = Vec<(Place, Vec<SocketAddr>)>;

fn places(listeners: &[(Listener, ListenerSetup)]) -> Places {
    let listeners = listeners.iter();
    listeners
        .map(|(listener, _)| (listener.place.clone(), listener.left_out.clone()))
        .collect()
}

/// Says where each listener is, and which of its addresses this machine lacks.
fn tell_places(config: &Config, places: &Places) {
    for (listener, (place, left_out)) in config.listeners.iter().zip(places) {
        let scheme = listener.scheme;
        match place {
            Place::Tcp(tcp) => {
                for address in &tcp.addresses {
                    info!("listening on {scheme}://{address}{}", listener.path());
                }
            }
            Place::Unix(_) => info!("listening on {scheme}://{place}"),
        }
        for address in left_out {
            info!("not on {scheme}://{address}: this machine has no such address");
        }
    }
}

/// Sockets of all listeners.
fn bind(config: &Config, files: &Files) -> Result<Vec<(Listener, ListenerSetup)>, Box<dyn Error>> {
    let mut listeners = Vec::new();
    let (shards, bounds) = (
        config.cpus.list.len(),
        SocketBounds::new(&config.settings.limits),
    );
    for (listener, tls) in config.listeners.iter().zip(files.tls().iter()) {
        let socket = Listener::bind_when_free(&listener.place, shards, bounds, |place| {
            let seconds = LISTENS_ON_MAX.as_secs();
            info!(
                "{place}: the port is in use, as that of a broker that was just killed may be; trying for \
                 {seconds} s"
            );
        });
        let socket = socket.map_err(|error| error.by_key(config.listeners_by.key()))?;
        listeners.push((socket, ListenerSetup::new(listener, tls.clone())));
    }
    Ok(listeners)
}

/// What may wait for the methods.
fn queue_bounds(config: &Config) -> question_queue::Bounds {
    question_queue::Bounds {
        questions_max: QUESTIONS_MAX,
        of_address_max: QUESTIONS_OF_ADDRESS_MAX,
        ipv6_prefix_bits: config.bans.ipv6_prefix_bits,
    }
}

/// Has the admin listener answer, if there is one: where it asks, and what the control plane tells.
fn start_admin(
    bound: Vec<desk::Bound>,
    (running, listening): (&Running, Listening),
    records: &Records,
    files: &Files,
) -> Result<(Receiver<Ask>, Desk, Telling), String> {
    let shown = Arc::new(ShownConfig::new(running.in_force(&listening)));
    let (asks_to, asks) = crossbeam_channel::bounded(ASKS_MAX);
    let kept = Kept {
        in_force: Arc::clone(&shown),
        records: records.clone(),
        files: files.admin(),
    };
    let desk = Desk::start((&running.config().admin, bound), asks_to, kept);
    let desk = desk.map_err(no_thread)?;
    Ok((asks, desk, Telling { listening, shown }))
}

/// Signals to the process, as a queue.
fn forward(mut signals: Signals) -> Result<Receiver<i32>, Box<dyn Error>> {
    let (sender, receiver) = crossbeam_channel::bounded(SIGNALS_MAX);
    let thread = std::thread::Builder::new().name("signals".into());
    let forwards = move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                return;
            }
        }
    };
    thread.spawn(forwards).map_err(no_thread)?;
    Ok(receiver)
}
