//! The terminal while the board is on it, and what comes from there: keys, its size, signals.
//!
//! Invariant: however the program ends, but by SIGKILL, the terminal is as it was: by a key, a failure, a
//! signal or a panic, which goes first through the hook that is set here.

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::io::{self, Stdout};
use std::panic;
use std::thread;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Events that may wait.
const EVENTS_MAX: usize = 64;

/// What comes from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A key was pressed.
    Key(KeyEvent),
    /// It has another size.
    Resized,
    /// A signal that ends the program.
    Signal(i32),
    /// It is gone.
    Gone,
}

/// A terminal that shows the board.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes it over.
    ///
    /// # Errors
    /// It is none.
    pub fn enter() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            leave();
            before(panicked);
        }));
        let screen = Screen {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
        };
        take_over()?;
        Ok(screen)
    }

    /// Draws.
    ///
    /// # Errors
    /// It is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Gives it to the shell until that lets the program go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        // It comes back when somebody lets the process go on.
        emulate_default_handler(SIGTSTP)?;
        take_over()?;
        // Not cleared: that would ask the terminal where its cursor is, and keys are being waited for.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Gives it back, and ends by the signal that came as one that nobody handles would.
    pub fn end_by(self, signal: i32) {
        drop(self);
        let _ = emulate_default_handler(signal);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    let taken = execute!(io::stdout(), EnterAlternateScreen, Hide);
    if taken.is_err() {
        leave();
    }
    taken
}

/// Whatever of it fails, the rest is done; nobody could be told.
fn leave() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

/// What comes from now on, by threads that end with the process.
///
/// # Errors
/// The system gives no thread, or no signals.
pub fn events() -> io::Result<Receiver<Happened>> {
    let (to, events) = mpsc::channel(EVENTS_MAX);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP])?;
    let to_too = to.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let _ = to_too.blocking_send(Happened::Signal(signal));
            }
        })?;
    thread::Builder::new()
        .name("keys".into())
        .spawn(move || read_keys(&to))?;
    Ok(events)
}

fn read_keys(to: &Sender<Happened>) {
    loop {
        let happened = match event::read() {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => Happened::Key(key),
            Ok(Event::Resize(..)) => Happened::Resized,
            Ok(_) => continue,
            Err(_) => Happened::Gone,
        };
        if to.blocking_send(happened).is_err() || happened == Happened::Gone {
            return;
        }
    }
}
