//! Answers as tables for people: columns as wide as they need, numbers to the right.
//!
//! Invariant: what clients have chosen moves nothing on a terminal: letters that nobody sees are spelled out.

use crate::control::visible::spelled_out;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

/// Between columns.
const GAP: &str = "  ";

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
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

/// A table of rows.
#[must_use]
pub fn table(columns: &[Column], rows: &[Value]) -> String {
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
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for ((cell, width), column) in line.iter().zip(&widths).zip(columns) {
            let blanks = " ".repeat(width - cell.width().min(*width));
            match column.2 {
                Form::Text | Form::Whether => written += &format!("{cell}{blanks}{GAP}"),
                _ => written += &format!("{blanks}{cell}{GAP}"),
            }
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
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
            Column("THERE", "there", Form::Whether),
        ];
        let rows = [
            json!({ "id": "a", "queue": 5, "there": true }),
            json!({ "id": "温度-sensor", "queue": 1_500_000, "there": null }),
        ];
        let wanted = "CLIENT         QUEUE  THERE\n\
                      a                5 B  yes\n\
                      温度-sensor  1.4 MiB  -\n";
        assert_eq!(table(&columns, &rows), wanted);
        let rate = Column("QUEUE", "queue", Form::BytesPerSecond);
        let told = sheet(&[rate], &json!({ "queue": 19_578.4 }));
        assert_eq!(told, "QUEUE  19 KiB/s\n");
        let wanted = "CLIENT  a\nQUEUE   5 B\nTHERE   yes\n";
        assert_eq!(sheet(&columns, &rows[0]), wanted);
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
