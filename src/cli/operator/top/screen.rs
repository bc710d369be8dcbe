//! The board drawn, for any size from 60x16 on; 80x24 has all of it.
//!
//! ```text
//!   where, version, how long, how often
//!   gauges, rates, lost and refused
//!   lines of how rates were
//!   what is wrong
//!   latencies           | shards
//!   lists, the chosen one first
//!   keys
//! ```

use super::board::Board;
use super::figures::{Figures, Latency};
use super::listing::{self, Column, Form, Kind, micros, written};
use crate::cli::operator::table::{bytes, harmless, seconds};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Cell, Clear, Paragraph, RenderDirection, Row, Sparkline, Table, Wrap,
};
use std::collections::VecDeque;
use std::time::Instant;
use unicode_width::UnicodeWidthStr;

const COLUMNS_MIN: u16 = 60;
const ROWS_MIN: u16 = 16;
/// Of latencies and shards.
const FIGURE_ROWS_MIN: u16 = 6;
const FIGURE_ROWS_MAX: u16 = 12;
/// Of a list, with what stands above it.
const LIST_ROWS_MIN: u16 = 5;
const SHARDS_COLUMNS: u16 = 39;
/// Narrower, latencies and shards do not stand beside each other.
const BESIDE_COLUMNS_MIN: u16 = 78;
/// Of a percentile.
const COLUMN: Constraint = Constraint::Length(6);

/// Between two texts of a line, and where one goes on.
const GAP: &str = "  ";
const MORE: &str = "...";

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// With what is left out first where there is no room for all, the highest number.
const KEYS: [(u8, &str); 7] = [
    (0, "q quit"),
    (2, "Tab list"),
    (3, "s sort"),
    (6, "r reverse"),
    (4, "/ filter"),
    (5, "p pause"),
    (1, "? help"),
];
const HELP: &[&str] = &[
    "q, Esc, Ctrl-C   quit",
    "Tab, Shift-Tab   the next list, or the one before",
    "s                sort the list by its next column",
    "r                the other way round",
    "arrows, j, k     scroll; PageUp, PageDown, Home, End",
    "/                show only names that contain a text; Esc clears it",
    "p, blank         pause, and go on",
    "+, -             ask twice, or half, as often",
    "Ctrl-L           ask now",
    "Ctrl-Z           stand aside for the shell (fg goes on)",
    "",
    "Latencies are of samples, up to the next power of two. A client is",
    "slow when its oldest message has waited for 100 ms or more.",
    "Who is loud is told for the last 10 to 20 seconds, of samples.",
];

/// Draws all of it.
pub fn draw(board: &Board, now: Instant, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let (width, height) = (area.width, area.height);
        let text =
            format!("{width}x{height} is too small: {COLUMNS_MIN}x{ROWS_MIN} at least; q quits");
        return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
    }
    let wrong = wrong(board, now);
    let wrong_rows = (wrong.width().div_ceil(usize::from(area.width))).clamp(1, 2) as u16;
    let figure_rows = (area.height / 4).clamp(FIGURE_ROWS_MIN, FIGURE_ROWS_MAX);
    let rows = [1, 1, 1, 2, wrong_rows, figure_rows, 1].map(Constraint::Length);
    let [
        title,
        gauges,
        rates,
        plots,
        trouble,
        figures,
        _,
        lists,
        keys,
    ] = Layout::vertical(
        rows.into_iter()
            .chain([Constraint::Fill(1), Constraint::Length(1)]),
    )
    .areas(area);
    draw_title(board, title, frame);
    let columns = usize::from(area.width);
    frame.render_widget(Line::from(gauges_of(board, columns)), gauges);
    frame.render_widget(rates_of(board, columns), rates);
    draw_plots(&board.points, plots, frame);
    let wrong = Paragraph::new(wrong).style(BAD).wrap(Wrap { trim: true });
    frame.render_widget(wrong, trouble);
    draw_figures(board, figures, frame);
    draw_lists(board, lists, frame);
    frame.render_widget(keys_of(board, columns), keys);
    if board.is_helping {
        draw_help(area, frame);
    }
}

fn draw_title(board: &Board, area: Rect, frame: &mut Frame<'_>) {
    let reading = board.reading.as_ref();
    let (version, uptime_seconds) = reading.map_or(("", 0), |reading| {
        (
            reading.status.version.as_str(),
            reading.status.uptime_seconds,
        )
    });
    let left = format!("ringmq {} at {}", harmless(version), board.place);
    let every = format!("{}s", board.every.as_secs_f64());
    let right = match board.is_paused {
        true => "paused".to_owned(),
        false => format!("up {}, every {every}", seconds(uptime_seconds)),
    };
    let room = usize::from(area.width).saturating_sub(right.width() + GAP.len());
    frame.render_widget(Line::styled(shortened(left, room), BOLD), area);
    let style = if board.is_paused { CHOSEN } else { PLAIN };
    frame.render_widget(Line::styled(right, style).alignment(Alignment::Right), area);
}

/// As much of a text as there is room for, and that it is not all.
fn shortened(mut text: String, columns: usize) -> String {
    if text.width() <= columns {
        return text;
    }
    while text.width() + MORE.len() > columns && text.pop().is_some() {}
    text + MORE
}

/// Texts beside each other, each whole or not at all: while there is no room for all, that of the highest
/// number is left out.
fn beside(mut texts: Vec<(u8, String)>, columns: usize) -> String {
    loop {
        let whole: Vec<_> = texts.iter().map(|(_, text)| text.as_str()).collect();
        let whole = whole.join(GAP);
        if whole.width() <= columns || texts.len() <= 1 {
            return whole;
        }
        let last = texts.iter().map(|(rank, _)| *rank).max();
        texts.retain(|(rank, _)| Some(*rank) != last);
    }
}

/// What is wrong, if anything: that nothing is told, or what the broker itself says.
fn wrong(board: &Board, now: Instant) -> String {
    if let Some(trouble) = &board.trouble {
        let since_seconds = now.saturating_duration_since(trouble.since).as_secs();
        return format!("for {}: {}", seconds(since_seconds), trouble.text);
    }
    let problems = board.reading.as_ref();
    let problems = problems.map_or(&[][..], |reading| &reading.status.problems);
    let problems: Vec<_> = problems.iter().map(|problem| harmless(problem)).collect();
    problems.join("; ")
}

fn gauges_of(board: &Board, columns: usize) -> String {
    let Some(reading) = &board.reading else {
        return String::new();
    };
    let status = &reading.status;
    let counts = [
        (0, "conns", status.connections),
        (3, "sessions", status.sessions),
        (5, "subs", status.subscriptions),
        (4, "retained", status.retained_messages),
        (2, "queued", status.queued_messages),
    ];
    let counts = counts.map(|(rank, name, count)| {
        let count = written(Some(count as f64), Form::Count);
        (rank, format!("{name} {count}"))
    });
    let memory = (1, format!("mem {}", bytes(status.memory_bytes)));
    beside(counts.into_iter().chain([memory]).collect(), columns)
}

/// All that there is room for: reasons are left out first, then bytes.
fn rates_of(board: &Board, columns: usize) -> Line<'static> {
    let reasons = board.figures.dropped_by_reason.len();
    let forms = (0..=reasons).rev().map(|reasons| (reasons, true));
    let mut lines = forms
        .chain([(0, false)])
        .map(|(reasons, has_bytes)| rates_with(&board.figures, reasons, has_bytes));
    let fitting = lines.find(|line| line.width() <= columns);
    fitting.unwrap_or_else(|| rates_with(&board.figures, 0, false))
}

fn rates_with(figures: &Figures, reasons: usize, has_bytes: bool) -> Line<'static> {
    let number = |rate: Option<f64>, form| written(rate, form);
    let flow = |name: &str, messages, size| {
        let (messages, size) = (number(messages, Form::Count), number(size, Form::Bytes));
        let size = if has_bytes {
            format!(", {size}/s")
        } else {
            String::new()
        };
        format!("{name} {messages}/s{size}{GAP}")
    };
    let loss = |rate: Option<f64>| if rate > Some(0.0) { BAD } else { PLAIN };
    let (lost, refused) = (figures.dropped_per_second, figures.refused_per_second);
    let all = &figures.dropped_by_reason;
    let named = all.iter().take(reasons);
    let mut told: Vec<_> = named
        .map(|(reason, rate)| format!("{reason} {}", number(Some(*rate), Form::Count)))
        .collect();
    if !told.is_empty() && told.len() < all.len() {
        told.push(MORE.to_owned());
    }
    let told = match told.is_empty() {
        true => String::new(),
        false => format!(" ({})", told.join(", ")),
    };
    Line::from(vec![
        Span::raw(flow(
            "in",
            figures.received_per_second,
            figures.bytes_received_per_second,
        )),
        Span::raw(flow(
            "out",
            figures.sent_per_second,
            figures.bytes_sent_per_second,
        )),
        Span::styled(
            format!("refused {}/s", number(refused, Form::Count)),
            loss(refused),
        ),
        Span::raw(GAP),
        Span::styled(
            format!("lost {}/s{told}", number(lost, Form::Count)),
            loss(lost),
        ),
    ])
}

fn draw_plots(points: &VecDeque<(u64, u64)>, area: Rect, frame: &mut Frame<'_>) {
    let [left, _, right] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    draw_plot("in", points.iter().map(|point| point.0), left, frame);
    draw_plot("out", points.iter().map(|point| point.1), right, frame);
}

/// The newest to the right, as many as there is room for.
fn draw_plot(
    name: &str,
    points: impl DoubleEndedIterator<Item = u64>,
    area: Rect,
    frame: &mut Frame<'_>,
) {
    const LABEL_COLUMNS: u16 = 9;
    let [label, plot] =
        Layout::horizontal([Constraint::Length(LABEL_COLUMNS), Constraint::Fill(1)]).areas(area);
    let points: Vec<u64> = points.rev().take(usize::from(plot.width)).collect();
    let most = points.iter().copied().max().unwrap_or(0);
    let text = format!("{name}, max\n{}/s", written(Some(most as f64), Form::Count));
    frame.render_widget(Paragraph::new(text), label);
    let plotted = Sparkline::default()
        .data(points)
        .max(most.max(1))
        .direction(RenderDirection::RightToLeft);
    frame.render_widget(plotted, plot);
}

/// Latencies and shards beside each other; where that is too narrow, shards only if they are chosen.
fn draw_figures(board: &Board, area: Rect, frame: &mut Frame<'_>) {
    match (area.width < BESIDE_COLUMNS_MIN, board.kind) {
        (true, Kind::Shards) => return draw_list(board, Kind::Shards, area, frame),
        (true, _) => return draw_latencies(board, area, frame),
        (false, _) => {}
    }
    let [left, _, right] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(SHARDS_COLUMNS),
    ])
    .areas(area);
    draw_latencies(board, left, frame);
    draw_list(board, Kind::Shards, right, frame);
}

fn draw_latencies(board: &Board, area: Rect, frame: &mut Frame<'_>) {
    let number = |text: &str| Cell::from(Line::from(text.to_owned()).alignment(Alignment::Right));
    let head = ["P50", "P99", "P99.9"].map(number);
    let head = [Cell::from("LATENCY up to")].into_iter().chain(head);
    let rows = board.figures.latencies.iter().map(|latency| {
        let Latency {
            what,
            p50,
            p99,
            p999,
            ..
        } = latency;
        let took = [p50, p99, p999].map(|took| took.map_or_else(|| "> 8 s".to_owned(), micros));
        let took = took.map(|text| number(&text));
        Row::new([Cell::from(what.clone())].into_iter().chain(took))
    });
    let widths = [Constraint::Fill(1), COLUMN, COLUMN, COLUMN];
    let head = Row::new(head).style(BOLD);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

/// As many lists as there is room for, the chosen one first.
fn draw_lists(board: &Board, area: Rect, frame: &mut Frame<'_>) {
    let mut kinds = vec![Kind::SlowClients, Kind::LoudClients, Kind::LoudTopics];
    if board.kind != Kind::Shards {
        kinds.rotate_left(board.kind.place());
    }
    kinds.truncate(usize::from((area.height / LIST_ROWS_MIN).clamp(1, 3)));
    let parts = Layout::vertical(kinds.iter().map(|_| Constraint::Fill(1))).split(area);
    for (kind, part) in kinds.into_iter().zip(parts.iter()) {
        draw_list(board, kind, *part, frame);
    }
}

fn draw_list(board: &Board, kind: Kind, area: Rect, frame: &mut Frame<'_>) {
    let (columns, order) = (kind.columns(), board.order(kind));
    let mark = |place: Option<usize>| match (order.column == place, order.is_reversed) {
        (false, _) => "",
        (true, false) => "▼",
        (true, true) => "▲",
    };
    let number = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let title = format!("{}{}", kind.title(), mark(None));
    let heads = columns.iter().enumerate();
    let heads =
        heads.map(|(place, Column(head, ..))| number(format!("{head}{}", mark(Some(place)))));
    let heads = Row::new([Cell::from(title)].into_iter().chain(heads));
    let is_chosen = board.kind == kind;
    let heads = heads.style(if is_chosen { CHOSEN } else { BOLD });
    let above = if is_chosen { board.above } else { 0 };
    let mut rows = board.rows(kind);
    if rows.is_empty() {
        rows.push(listing::Row {
            name: "none".to_owned(),
            ..listing::Row::default()
        });
    }
    let rows = rows.into_iter().skip(above).map(|row| {
        let cells = row.numbers.iter().zip(columns);
        let cells = cells.map(|(value, Column(_, _, form))| number(written(*value, *form)));
        let cells = [Cell::from(row.name)].into_iter().chain(cells);
        Row::new(cells).style(if row.is_bad { BAD } else { PLAIN })
    });
    let widths = columns
        .iter()
        .map(|Column(_, width, _)| Constraint::Length(*width));
    let widths = [Constraint::Fill(1)].into_iter().chain(widths);
    frame.render_widget(Table::new(rows, widths).header(heads), area);
}

fn keys_of(board: &Board, columns: usize) -> Line<'static> {
    let filter = &board.filter;
    if board.is_typing {
        return Line::raw(format!("filter: {filter}_   Enter keeps it, Esc clears it"));
    }
    let mut texts = KEYS.map(|(rank, text)| (rank, text.to_owned())).to_vec();
    if !filter.is_empty() {
        texts.insert(0, (0, format!("only {filter:?} (Esc: all)")));
    }
    Line::raw(beside(texts, columns))
}

fn draw_help(area: Rect, frame: &mut Frame<'_>) {
    const COLUMNS: u16 = 70;
    let lines: Vec<_> = HELP.iter().map(|line| Line::raw(*line)).collect();
    let rows = lines.len() as u16 + 2;
    let place = area.centered(Constraint::Length(COLUMNS), Constraint::Length(rows));
    frame.render_widget(Clear, place);
    let help = Paragraph::new(lines).block(Block::bordered().title(" keys "));
    frame.render_widget(help, place);
}
