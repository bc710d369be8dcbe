//! Answers as tables for people: columns as wide as they need, numbers to the right.
//!
//! Invariants: what clients have chosen moves nothing on a terminal: letters that nobody sees are spelled
//! out. Names are cut where a terminal is too narrow for them, and nowhere else.

use crate::control::visible::spelled_out;
use ratatui::crossterm::terminal;
use serde_json::Value;
use std::borrow::Cow;
use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between columns.
const GAP: &str = "  ";
/// What is left of a name at least, however narrow the terminal is.
const NAME_WIDTH_MIN: usize = 12;
/// What is kept free for a text that is not cut: it goes on in the next line.
const WHOLE_WIDTH: usize = 24;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A name, as it is; a terminal may have no room for all of it.
    Text,
    /// As it is, always all of it.
    Whole,
    /// Without the port; as a name.
    Address,
    /// As it is, to the right.
    Count,
    /// With its unit.
    Bytes,
    /// Likewise, of a rate that may have a fraction.
    BytesPerSecond,
    /// With its units.
    Seconds,
    /// With its units, from milliseconds.
    Milliseconds,
    /// Yes or no.
    Whether,
}

/// A column: what stands above it, which field of a row it shows, and how.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub &'static str, pub &'static str, pub Form);

/// A table of rows; on a terminal, as wide as that.
#[must_use]
pub fn table(columns: &[Column], rows: &[Value]) -> String {
    let width = stdout().is_terminal().then(terminal::size);
    let width = width.and_then(Result::ok);
    fitted(columns, rows, width.map(|(width, _)| usize::from(width)))
}

/// A table whose names are cut where it would be wider than `width_max`.
fn fitted(columns: &[Column], rows: &[Value], width_max: Option<usize>) -> String {
    let mut lines: Vec<Vec<String>> =
        vec![columns.iter().map(|column| column.0.to_owned()).collect()];
    for row in rows {
        let cells = columns
            .iter()
            .map(|column| written(row.get(column.1), column.2));
        lines.push(cells.collect());
    }
    let mut widths = vec![0; columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.width());
        }
    }
    if let Some(width_max) = width_max {
        narrow(&mut widths, columns, width_max);
    }
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for ((cell, width), column) in line.iter().zip(&widths).zip(columns) {
            let cell = cut(cell, *width);
            let blanks = " ".repeat(width - cell.width().min(*width));
            match column.2 {
                Form::Text | Form::Whole | Form::Address | Form::Whether => {
                    written += &format!("{cell}{blanks}{GAP}");
                }
                _ => written += &format!("{blanks}{cell}{GAP}"),
            }
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

/// Takes from the widest names until all columns fit; the first of a line may be twice as wide as others.
fn narrow(widths: &mut [usize], columns: &[Column], width_max: usize) {
    let needed = widths.iter().zip(columns);
    let needed = needed.map(|(width, column)| match column.2 {
        Form::Whole => WHOLE_WIDTH.min(*width),
        _ => *width,
    });
    let gaps = GAP.width() * columns.len().saturating_sub(1);
    let surplus = (needed.sum::<usize>() + gaps).saturating_sub(width_max);
    for _ in 0..surplus {
        let names = widths.iter_mut().zip(columns).enumerate();
        let names = names.filter(|(_, (width, column))| {
            **width > NAME_WIDTH_MIN && matches!(column.2, Form::Text | Form::Address)
        });
        let widest = names.max_by_key(|(place, (width, _))| match place {
            0 => **width / 2,
            _ => **width,
        });
        let Some((_, (width, _))) = widest else {
            return;
        };
        *width -= 1;
    }
}

/// The beginning of a text that is wider than its column.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let (mut shown, mut left) = (String::new(), width.saturating_sub(1));
    for letter in text.chars() {
        let Some(rest) = left.checked_sub(letter.width().unwrap_or(0)) else {
            break;
        };
        left = rest;
        shown.push(letter);
    }
    shown.push('…');
    shown.into()
}

/// Lines of names and values.
#[must_use]
pub fn sheet(fields: &[Column], row: &Value) -> String {
    let width = fields
        .iter()
        .map(|field| field.0.width())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for Column(name, field, form) in fields {
        let value = written(row.get(field), *form);
        let blanks = " ".repeat(width - name.width().min(width));
        text += &format!("{name}{blanks}{GAP}{value}\n");
    }
    text
}

/// A value for people.
#[must_use]
pub fn written(value: Option<&Value>, form: Form) -> String {
    match (value, form) {
        (None | Some(Value::Null), _) => "-".to_owned(),
        (Some(Value::Bool(is)), _) => if *is { "yes" } else { "no" }.to_owned(),
        (Some(value), Form::Address) => without_port(value).unwrap_or_else(|| visible(value)),
        (Some(value), Form::Bytes) => value.as_u64().map_or_else(|| visible(value), bytes),
        (Some(value), Form::BytesPerSecond) => value.as_f64().map_or_else(
            || visible(value),
            |rate| format!("{}/s", bytes(rate.round() as u64)),
        ),
        (Some(value), Form::Seconds) => value.as_u64().map_or_else(|| visible(value), seconds),
        (Some(value), Form::Milliseconds) => {
            value.as_u64().map_or_else(|| visible(value), milliseconds)
        }
        (Some(value), _) => visible(value),
    }
}

fn without_port(value: &Value) -> Option<String> {
    let address: SocketAddr = value.as_str()?.parse().ok()?;
    Some(address.ip().to_string())
}

fn visible(value: &Value) -> String {
    match value {
        Value::String(text) => harmless(text),
        other => harmless(&other.to_string()),
    }
}

/// A text that does nothing to a terminal.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            letter if letter < ' ' => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    match shown.is_empty() {
        true => "\"\"".to_owned(),
        false => spelled_out(&shown).into_owned(),
    }
}

/// Bytes with their unit.
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (count as f64, "B");
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    match unit {
        "B" => format!("{count} B"),
        unit if value < 10.0 => format!("{value:.1} {unit}"),
        unit => format!("{value:.0} {unit}"),
    }
}

/// Seconds by their two largest units.
#[must_use]
pub fn seconds(count: u64) -> String {
    let (minutes, hours, days) = (count / 60, count / 3_600, count / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{count}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", count % 60),
        (0, hours, _) => format!("{hours}h {}m", minutes % 60),
        (days, _, _) => format!("{days}d {}h", hours % 24),
    }
}

/// Milliseconds with the unit that fits.
#[must_use]
pub fn milliseconds(count: u64) -> String {
    match count {
        0..1_000 => format!("{count}ms"),
        1_000..60_000 => format!("{}.{}s", count / 1_000, count % 1_000 / 100),
        _ => seconds(count / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let columns = [
            Column("CLIENT", "id", Form::Text),
            Column("QUEUE", "queue", Form::Bytes),
            Column("CONNECTED", "connected", Form::Whether),
        ];
        let rows = [
            json!({ "id": "a", "queue": 5, "connected": true }),
            json!({ "id": "温度-sensor", "queue": 1_500_000, "connected": null }),
        ];
        let wanted = "CLIENT         QUEUE  CONNECTED\n\
                      a                5 B  yes\n\
                      温度-sensor  1.4 MiB  -\n";
        assert_eq!(table(&columns, &rows), wanted);
        let rate = Column("QUEUE", "queue", Form::BytesPerSecond);
        let told = sheet(&[rate], &json!({ "queue": 19_578.4 }));
        assert_eq!(told, "QUEUE  19 KiB/s\n");
        let wanted = "CLIENT     a\nQUEUE      5 B\nCONNECTED  yes\n";
        assert_eq!(sheet(&columns, &rows[0]), wanted);
    }

    #[test]
    fn names_are_cut_where_a_terminal_is_too_narrow() {
        let columns = [
            Column("CLIENT", "id", Form::Text),
            Column("USER", "user", Form::Text),
            Column("QUEUE", "queue", Form::Bytes),
            Column("BECAUSE", "why", Form::Whole),
        ];
        let why = "it is behind or away, and memory is short";
        let row =
            json!({ "id": "sensor-of-the-kitchen-温度計", "user": "ann", "queue": 5, "why": why });
        let rows = [row, json!({ "id": "a", "user": "b", "queue": 6 })];
        let shown = |width| fitted(&columns, &rows, width);
        let whole = format!("sensor-of-the-kitchen-温度計  ann     5 B  {why}\n");
        for width in [None, Some(67), Some(100)] {
            assert!(shown(width).ends_with(&format!("{whole}a{}b       6 B  -\n", " ".repeat(29))));
        }
        let wanted = format!(
            "CLIENT                     USER  QUEUE  BECAUSE\n\
             sensor-of-the-kitchen-温…  ann     5 B  {why}\n\
             a                          b       6 B  -\n"
        );
        assert_eq!(shown(Some(64)), wanted);
        // A letter that is two wide does not go over the edge.
        assert!(shown(Some(63)).contains("\nsensor-of-the-kitchen-…   ann"));
        assert!(shown(Some(5)).contains("\nsensor-of-t…  ann     5 B  "));
        assert_eq!(shown(Some(5)), shown(Some(0)));
    }

    #[test]
    fn what_a_client_chose_moves_nothing_on_a_terminal() {
        assert_eq!(
            harmless("a\x1b[2J\n\u{202e}b\\"),
            "a\\u{1b}[2J\\n\\u202eb\\"
        );
        assert_eq!(harmless(""), "\"\"");
    }

    #[test]
    fn the_first_name_of_a_line_is_left_more() {
        let columns = [
            Column("CLIENT", "id", Form::Text),
            Column("USER", "user", Form::Text),
        ];
        let row = json!({ "id": "i".repeat(60), "user": "u".repeat(60) });
        let shown = |width| fitted(&columns, std::slice::from_ref(&row), Some(width));
        let wanted = |id: usize, user: usize| {
            format!("\n{}…  {}…\n", "i".repeat(id - 1), "u".repeat(user - 1))
        };
        for (width, id, user) in [(90, 59, 29), (62, 41, 19), (32, 18, 12), (10, 12, 12)] {
            assert!(
                shown(width).ends_with(&wanted(id, user)),
                "{}",
                shown(width)
            );
        }
    }

    #[test]
    fn an_address_is_shown_without_its_port() {
        for (address, wanted) in [
            ("192.0.2.1:4660", "192.0.2.1"),
            ("[2001:db8::1]:4660", "2001:db8::1"),
            ("a unix socket", "a unix socket"),
        ] {
            assert_eq!(written(Some(&json!(address)), Form::Address), wanted);
        }
    }

    #[test]
    fn numbers_have_units() {
        for (count, wanted) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (15 << 20, "15 MiB"),
        ] {
            assert_eq!(bytes(count), wanted);
        }
        for (count, wanted) in [
            (59, "59s"),
            (61, "1m 1s"),
            (7_260, "2h 1m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(seconds(count), wanted);
        }
        assert_eq!(
            (milliseconds(7), milliseconds(1_250)),
            ("7ms".into(), "1.2s".into())
        );
    }
}
