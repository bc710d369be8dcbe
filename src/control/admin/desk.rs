//! The admin listener as the control plane has it: where it answers, and how that becomes other places,
//! names, tokens and bounds while it does.
//!
//! Invariants: what can fail (a place that others have, a thread) comes before anything is changed; who is at
//! a place that stays is not disturbed, and goes by the new rules with the next request.

use super::answers::{Answers, Rules};
use super::counts::AdminCounts;
use super::kept::{Kept, KeptFiles};
use super::{Serving, bind};
use crate::control::config::AdminConfig;
use crate::control::overview::Ask;
use crate::shard::listener::{Listener, Place, SocketFile};
use crossbeam_channel::Sender;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc::{self, UnboundedSender};
use tracing::{debug, info};

/// What becomes another one.
pub(super) struct Renewal {
    /// Who may ask, and how much.
    pub rules: Rules,
    /// It answers there too.
    pub opened: Vec<Bound>,
    /// It does not answer there any more.
    pub closed: Vec<Place>,
}

/// A place as it was wanted, and the listener there, which accepts nobody yet.
pub struct Bound {
    /// As it was wanted: the port may be left to the system.
    pub(super) wanted: Place,
    pub(super) listener: Listener,
}

/// Where it answers.
struct Open {
    wanted: Place,
    file: Option<SocketFile>,
}

/// The admin listener, which may be nowhere.
pub struct Desk {
    asks: Sender<Ask>,
    kept: Kept,
    counts: Arc<AdminCounts>,
    renewals: Option<UnboundedSender<Renewal>>,
    open: Vec<Open>,
}

impl Desk {
    /// Answers at these places by what is asked of the control plane.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        (config, bound): (&AdminConfig, Vec<Bound>),
        asks: Sender<Ask>,
        kept: Kept,
    ) -> io::Result<Self> {
        let mut desk = Desk {
            asks,
            kept,
            counts: Arc::default(),
            renewals: None,
            open: Vec::new(),
        };
        let files = desk.kept.files.clone();
        if !bound.is_empty() {
            desk.make_ready(config)?;
        }
        desk.follow(config, files, bound);
        Ok(desk)
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> &AdminCounts {
        &self.counts
    }

    /// The files of its sockets, which go with the broker.
    pub fn files(&self) -> impl Iterator<Item = &SocketFile> {
        self.open.iter().filter_map(|open| open.file.as_ref())
    }

    /// Listens where another configuration says and it does not yet; nobody is answered there so far.
    ///
    /// # Errors
    /// It cannot listen there, or the system gives no thread.
    pub fn prepare(&mut self, config: &AdminConfig) -> Result<Vec<Bound>, String> {
        let is_open = |place: &Place| self.open.iter().any(|open| open.wanted == *place);
        let bound = bind(config, is_open)?;
        if !bound.is_empty() {
            let ready = self.make_ready(config);
            ready.map_err(|error| format!("admin: no thread that answers: {error}"))?;
        }
        Ok(bound)
    }

    /// Goes by another configuration from now on.
    pub fn follow(&mut self, config: &AdminConfig, files: KeptFiles, bound: Vec<Bound>) {
        let Some(renewals) = &self.renewals else {
            return;
        };
        let stays = |open: &Open| config.places().any(|(_, place)| *place == open.wanted);
        let (open, closed): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(stays);
        self.open = open;
        for open in &closed {
            info!(
                "operators are not answered at {} any more (admin)",
                open.wanted
            );
        }
        remove(closed.iter().filter_map(|open| open.file.as_ref()));
        self.open.extend(bound.iter().map(|bound| Open {
            wanted: bound.wanted.clone(),
            file: bound.listener.file.clone(),
        }));
        // It ends with the process only.
        let _ = renewals.send(Renewal {
            rules: Rules::new(config, files),
            opened: bound,
            closed: closed.into_iter().map(|open| open.wanted).collect(),
        });
    }

    /// Starts the thread that answers, if there is none.
    fn make_ready(&mut self, config: &AdminConfig) -> io::Result<()> {
        if self.renewals.is_some() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let rules = Rules::new(config, self.kept.files.clone());
        let counts = Arc::clone(&self.counts);
        let serving = Serving {
            answers: Answers::new(self.asks.clone(), rules, &self.kept, Arc::clone(&counts)),
            counts,
            guests: super::guests::Guests::default(),
        };
        let (to, renewals) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("admin".into());
        thread.spawn(move || runtime.block_on(serving.serve_all(renewals)))?;
        self.renewals = Some(to);
        Ok(())
    }
}

/// Removes files of sockets at which nobody is answered.
fn remove<'a>(files: impl Iterator<Item = &'a SocketFile>) {
    for file in files {
        if let Err(error) = file.remove() {
            debug!("a socket's file stays: {error}");
        }
    }
}

/// Places that were bound for nothing.
pub fn give_up(bound: &[Bound]) {
    remove(
        bound
            .iter()
            .filter_map(|bound| bound.listener.file.as_ref()),
    );
}
