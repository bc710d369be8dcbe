//! What is on the screen, and what keys do to it: no terminal and no broker here.

use super::figures::Figures;
use super::listing::{self, Kind, Order, Row};
use super::reading::Reading;
use crate::cli::operator::table::harmless;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Points of the lines that show how rates were.
const POINTS_MAX: usize = 400;
/// Letters of a filter.
const FILTER_MAX: usize = 60;
/// Between readings, at least and at most.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// See [`EVERY_MIN`].
pub const EVERY_MAX: Duration = Duration::from_secs(60);

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Show it.
    Show,
    /// Ask the broker at once.
    Ask,
    /// Stand aside for the shell.
    Suspend,
    /// End.
    Leave,
}

/// The broker is not reached, or does not tell.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Since when.
    pub since: Instant,
    /// Why.
    pub text: String,
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub struct Board {
    /// Where the broker is.
    pub place: String,
    /// Between readings.
    pub every: Duration,
    /// Nothing is asked meanwhile.
    pub is_paused: bool,
    /// A filter is being typed.
    pub is_typing: bool,
    /// The keys are told.
    pub is_helping: bool,
    /// Only what has this in its name is listed.
    pub filter: String,
    /// The list that keys are for.
    pub kind: Kind,
    /// Rows of that list that stand above the first one shown.
    pub above: usize,
    /// The last reading.
    pub reading: Option<Reading>,
    /// What it and the one before make.
    pub figures: Figures,
    /// Messages received and sent per second, oldest first.
    pub points: VecDeque<(u64, u64)>,
    /// Why there is no newer one.
    pub trouble: Option<Trouble>,
    orders: [Order; Kind::ALL.len()],
}

impl Board {
    /// An empty one.
    #[must_use]
    pub fn new(place: String, every: Duration) -> Self {
        Board {
            place,
            every: every.clamp(EVERY_MIN, EVERY_MAX),
            is_paused: false,
            is_typing: false,
            is_helping: false,
            filter: String::new(),
            kind: Kind::default(),
            above: 0,
            reading: None,
            figures: Figures::default(),
            points: VecDeque::new(),
            trouble: None,
            orders: Kind::ALL.map(Kind::order),
        }
    }

    /// The broker has told.
    pub fn take(&mut self, reading: Reading) {
        self.figures = Figures::between(self.reading.as_ref(), &reading);
        let rates = (
            self.figures.received_per_second,
            self.figures.sent_per_second,
        );
        if let (Some(received), Some(sent)) = rates {
            self.points
                .push_back((received.round() as u64, sent.round() as u64));
        }
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
        self.trouble = None;
        self.reading = Some(reading);
    }

    /// It has not: what was told last stays, but rates would be of a time that is over.
    pub fn miss(&mut self, now: Instant, why: &str) {
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        let text = harmless(why);
        self.trouble = Some(Trouble { since, text });
        if let Some(reading) = &self.reading {
            self.figures = Figures {
                shards: Figures::between(None, reading).shards,
                ..Figures::default()
            };
        }
    }

    /// In which order a list stands.
    #[must_use]
    pub fn order(&self, kind: Kind) -> Order {
        self.orders
            .get(kind.place())
            .copied()
            .unwrap_or_else(|| kind.order())
    }

    /// The rows of a list that the filter leaves, in their order.
    #[must_use]
    pub fn rows(&self, kind: Kind) -> Vec<Row> {
        let Some(reading) = &self.reading else {
            return Vec::new();
        };
        let top = &reading.top;
        let mut rows: Vec<Row> = match kind {
            Kind::SlowClients => top.slow_clients.iter().map(Row::from).collect(),
            Kind::LoudClients => top.loud_clients.iter().map(Row::from).collect(),
            Kind::LoudTopics => top.loud_topics.iter().map(Row::from).collect(),
            Kind::Shards => self.figures.shards.iter().map(Row::from).collect(),
        };
        if kind != Kind::Shards && !self.filter.is_empty() {
            let wanted = self.filter.to_lowercase();
            rows.retain(|row| row.name.to_lowercase().contains(&wanted));
        }
        listing::sort(&mut rows, self.order(kind));
        rows
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Wish {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => Wish::Leave,
            KeyCode::Char('z') if is_control => Wish::Suspend,
            KeyCode::Char('l') if is_control => Wish::Ask,
            _ if is_control => Wish::Show,
            code if self.is_typing => self.type_filter(code),
            code => self.command(code),
        }
    }

    fn type_filter(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Enter | KeyCode::Tab => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.above = 0;
        Wish::Show
    }

    fn command(&mut self, code: KeyCode) -> Wish {
        if std::mem::take(&mut self.is_helping) {
            // Any key ends it; some do what they do as well.
            let ends_only = matches!(code, KeyCode::Esc | KeyCode::Char('?' | 'h' | 'q'));
            if ends_only {
                return Wish::Show;
            }
        }
        match code {
            KeyCode::Char('q') => return Wish::Leave,
            KeyCode::Esc if self.filter.is_empty() => return Wish::Leave,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.is_helping = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return if self.is_paused {
                    Wish::Show
                } else {
                    Wish::Ask
                };
            }
            KeyCode::Char('+') => self.pace(self.every / 2),
            KeyCode::Char('-') => self.pace(self.every * 2),
            KeyCode::Char('s') => self.sort(|order, columns| order.go_on(columns)),
            KeyCode::Char('r') => self.sort(|order, _| order.is_reversed = !order.is_reversed),
            KeyCode::Tab => self.choose(self.kind.next(false)),
            KeyCode::BackTab => self.choose(self.kind.next(true)),
            code => self.scroll(code),
        }
        Wish::Show
    }

    fn pace(&mut self, every: Duration) {
        self.every = every.clamp(EVERY_MIN, EVERY_MAX);
    }

    fn choose(&mut self, kind: Kind) {
        self.kind = kind;
        self.above = 0;
    }

    fn sort(&mut self, change: impl FnOnce(&mut Order, usize)) {
        if let Some(order) = self.orders.get_mut(self.kind.place()) {
            change(order, self.kind.columns().len());
        }
        self.above = 0;
    }

    fn scroll(&mut self, code: KeyCode) {
        const PAGE: usize = 5;
        let last = self.rows(self.kind).len().saturating_sub(1);
        let above = match code {
            KeyCode::Down | KeyCode::Char('j') => self.above + 1,
            KeyCode::Up | KeyCode::Char('k') => self.above.saturating_sub(1),
            KeyCode::PageDown => self.above + PAGE,
            KeyCode::PageUp => self.above.saturating_sub(PAGE),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => self.above,
        };
        self.above = above.min(last);
    }
}
