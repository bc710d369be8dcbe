//! Lists of who and what there is, with columns to sort by.

use super::figures::OfShard;
use super::reading::{Loud, Slow};
use crate::cli::operator::table::{bytes, harmless, milliseconds};
use std::cmp::Ordering;

/// Which list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Whose oldest message has waited longest.
    #[default]
    SlowClients,
    /// Who publishes most.
    LoudClients,
    /// Where to.
    LoudTopics,
    /// Shards.
    Shards,
}

/// A column: what stands above it, how wide it is, and how its numbers are written.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub &'static str, pub u16, pub Form);

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is; large ones by thousands.
    Count,
    /// With its unit.
    Bytes,
    /// With its unit.
    Milliseconds,
    /// With its unit.
    Microseconds,
    /// Hundredths.
    Percent,
}

const SLOW: &[Column] = &[
    Column("SHARD", 6, Form::Count),
    Column("WAITS", 8, Form::Milliseconds),
    Column("MESSAGES", 9, Form::Count),
    Column("BYTES", 9, Form::Bytes),
    Column("LOST", 8, Form::Count),
];
const LOUD: &[Column] = &[
    Column("MESSAGES/S", 11, Form::Count),
    Column("BYTES/S", 10, Form::Bytes),
];
const SHARDS: &[Column] = &[
    Column("CPU", 5, Form::Percent),
    Column("CONNS", 6, Form::Count),
    Column("IN/S", 5, Form::Count),
    Column("OUT/S", 6, Form::Count),
    Column("TURN", 6, Form::Microseconds),
];

impl Kind {
    /// All of them, in the order in which they are gone through.
    pub const ALL: [Kind; 4] = [
        Kind::SlowClients,
        Kind::LoudClients,
        Kind::LoudTopics,
        Kind::Shards,
    ];

    /// Its place among them.
    #[must_use]
    pub const fn place(self) -> usize {
        self as usize
    }

    /// The one behind it, or before.
    #[must_use]
    pub fn next(self, is_back: bool) -> Self {
        let step = if is_back { Self::ALL.len() - 1 } else { 1 };
        let place = (self.place() + step) % Self::ALL.len();
        Self::ALL.get(place).copied().unwrap_or_default()
    }

    /// What stands above its names.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Kind::SlowClients => "SLOW CLIENT",
            Kind::LoudClients => "LOUD CLIENT",
            Kind::LoudTopics => "LOUD TOPICS",
            Kind::Shards => "SHARD",
        }
    }

    /// What stands behind them.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Kind::SlowClients => SLOW,
            Kind::LoudClients | Kind::LoudTopics => LOUD,
            Kind::Shards => SHARDS,
        }
    }

    /// How it is sorted unless somebody says so.
    #[must_use]
    pub const fn order(self) -> Order {
        match self {
            Kind::SlowClients => Order::by(Some(1)),
            Kind::LoudClients | Kind::LoudTopics => Order::by(Some(0)),
            Kind::Shards => Order::by(None),
        }
    }
}

/// In which order rows stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// By this column, most first; by name, if it is none.
    pub column: Option<usize>,
    /// The other way round.
    pub is_reversed: bool,
}

impl Order {
    const fn by(column: Option<usize>) -> Self {
        let is_reversed = false;
        Order {
            column,
            is_reversed,
        }
    }

    /// By the next column of so many, the name behind the last.
    pub fn go_on(&mut self, columns: usize) {
        let next = self.column.map_or(0, |column| column + 1);
        *self = Order::by((next < columns).then_some(next));
    }
}

/// A row: its name, and a number for each column, if it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Harmless to a terminal.
    pub name: String,
    /// In the order of the columns.
    pub numbers: Vec<Option<f64>>,
    /// Something is wrong with it.
    pub is_bad: bool,
}

impl From<&Slow> for Row {
    fn from(slow: &Slow) -> Self {
        let numbers = [
            u64::from(slow.shard),
            slow.waits_ms,
            slow.messages,
            slow.bytes,
            slow.dropped_messages,
        ];
        Row {
            name: harmless(&slow.client_id),
            numbers: numbers.map(|number| Some(number as f64)).to_vec(),
            is_bad: false,
        }
    }
}

impl From<&Loud> for Row {
    fn from(loud: &Loud) -> Self {
        Row {
            name: harmless(&loud.name),
            numbers: vec![Some(loud.messages_per_second), Some(loud.bytes_per_second)],
            is_bad: false,
        }
    }
}

impl From<&OfShard> for Row {
    fn from(shard: &OfShard) -> Self {
        Row {
            name: shard.shard.to_string(),
            numbers: vec![
                shard.cpus,
                Some(shard.connections as f64),
                shard.received_per_second,
                shard.sent_per_second,
                shard.turn_p99_us.map(|us| us as f64),
            ],
            is_bad: !shard.answers,
        }
    }
}

/// Sorts rows: those of which the number is not known come last, equal ones by name.
pub fn sort(rows: &mut [Row], order: Order) {
    let number = |row: &Row| row.numbers.get(order.column?).copied().flatten();
    let turned = |ordering: Ordering| match order.is_reversed {
        true => ordering.reverse(),
        false => ordering,
    };
    rows.sort_by(|one, other| {
        let names = by_name(&one.name, &other.name);
        match (number(one), number(other)) {
            (Some(one), Some(other)) => turned(other.total_cmp(&one)).then(names),
            (None, None) => turned(names),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        }
    });
}

/// Those that are numbers, as of shards, by their size.
fn by_name(one: &str, other: &str) -> Ordering {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

/// A number in as few letters as tell what it is about.
#[must_use]
pub fn written(number: Option<f64>, form: Form) -> String {
    let Some(number) = number else {
        return "-".to_owned();
    };
    let whole = number.max(0.0).round() as u64;
    match form {
        Form::Count => count(number),
        Form::Bytes => bytes(whole),
        Form::Milliseconds => milliseconds(whole),
        Form::Microseconds if whole == u64::MAX => "> 8 s".to_owned(),
        Form::Microseconds => micros(whole),
        Form::Percent => format!("{:.0} %", number * 100.0),
    }
}

fn count(number: f64) -> String {
    match number {
        0.05..9.95 => {
            let text = format!("{number:.1}");
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
        ..99_999.5 => format!("{number:.0}"),
        ..999_950.0 => format!("{:.0}k", number / 1e3),
        ..9_995_000.0 => format!("{:.2}M", number / 1e6),
        ..999_500_000.0 => format!("{:.0}M", number / 1e6),
        _ => format!("{:.1}G", number / 1e9),
    }
}

/// Microseconds with the unit that fits.
#[must_use]
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rows: &[(&str, Option<f64>)], order: Order) -> Vec<String> {
        let row = |(name, number): &(&str, Option<f64>)| Row {
            name: (*name).to_owned(),
            numbers: vec![*number],
            is_bad: false,
        };
        let mut rows: Vec<_> = rows.iter().map(row).collect();
        sort(&mut rows, order);
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn rows_stand_by_number_or_name_and_unknown_ones_last() {
        let rows = [
            ("10", Some(1.0)),
            ("9", Some(1.0)),
            ("7", None),
            ("8", Some(5.0)),
        ];
        let mut order = Order::by(Some(0));
        assert_eq!(names(&rows, order), ["8", "9", "10", "7"]);
        order.is_reversed = true;
        assert_eq!(names(&rows, order), ["9", "10", "8", "7"]);
        order.go_on(1);
        assert_eq!(names(&rows, order), ["7", "8", "9", "10"]);
        order.go_on(1);
        assert_eq!(order, Order::by(Some(0)));
    }

    #[test]
    fn numbers_are_short() {
        for (number, wanted) in [
            (0.0, "0"),
            (3.25, "3.2"),
            (12.3, "12"),
            (99_999.0, "99999"),
            (123_456.0, "123k"),
            (1_234_567.0, "1.23M"),
            (12_345_678.0, "12M"),
            (2e9, "2.0G"),
        ] {
            assert_eq!(written(Some(number), Form::Count), wanted);
        }
        assert_eq!(written(Some(0.374), Form::Percent), "37 %");
        assert_eq!(written(None, Form::Bytes), "-");
        for (us, wanted) in [(512, "512 us"), (1_024, "1.0 ms"), (65_536, "66 ms")] {
            assert_eq!(written(Some(us as f64), Form::Microseconds), wanted);
        }
        let beyond = written(Some(u64::MAX as f64), Form::Microseconds);
        assert_eq!(beyond, "> 8 s");
    }
}
