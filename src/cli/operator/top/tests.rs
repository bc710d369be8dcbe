//! What the screen shows, cell by cell, and what keys make of it.

use super::board::{Board, Wish};
use super::listing::Kind;
use super::reading::{Bucket, Loud, Reading, Shard, Slow, Status, Times, Top};
use super::{screen, text};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::{Duration, Instant};

fn shard(number: u16, seconds: u64) -> Shard {
    let times = |what: &str, qos, is_local, us_max| Times {
        what: what.to_owned(),
        qos,
        is_local,
        buckets: vec![Bucket {
            us_max: Some(us_max),
            count: 100 * seconds,
        }],
    };
    let count = u64::from(number) + 1;
    let counts = [
        ("connections", 9_000),
        ("messages_received", 50 * seconds * count),
        ("messages_sent", 120_000 * seconds * count),
        ("bytes_sent", (9 << 20) * seconds),
        ("bytes_received", 4_096 * seconds),
        ("dropped_queue_full", 3 * seconds),
    ];
    Shard {
        shard: number,
        answers: number != 1,
        cpu_seconds: Some(seconds as f64 * 0.37),
        counts: counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect(),
        latencies: vec![
            times("delivery", Some(0), Some(true), 512),
            times("delivery", Some(1), Some(false), 4_096),
            times("puback", None, None, 256),
            times("turn", None, None, 128),
        ],
    }
}

fn reading(begun: Instant, seconds: u64) -> Reading {
    let loud = |name: &str, rate| Loud {
        name: name.to_owned(),
        messages_per_second: rate,
        bytes_per_second: rate * 100.0,
    };
    let slow = |client_id: &str, waits_ms, bytes| Slow {
        client_id: client_id.to_owned(),
        shard: 1,
        waits_ms,
        messages: 7,
        bytes,
        dropped_messages: 2,
    };
    Reading {
        at: begun + Duration::from_secs(seconds),
        status: Status {
            version: "0.1.0".to_owned(),
            uptime_seconds: seconds,
            connections: 18_000,
            sessions: 20_120,
            subscriptions: 40_000,
            retained_messages: 1_200,
            queued_messages: 55,
            memory_bytes: 512 << 20,
            problems: Vec::new(),
        },
        shards: vec![shard(0, seconds), shard(1, seconds)],
        top: Top {
            slow_clients: vec![slow("meter-7", 1_500, 10), slow("Meter-\u{1b}[2J", 900, 70)],
            loud_clients: vec![loud("plant-1", 90.0), loud("plant-2", 5.5)],
            loud_topics: vec![loud("plant/1/#", 95.5)],
        },
    }
}

fn board() -> Board {
    let begun = Instant::now();
    let mut board = Board::new("http://127.0.0.1:14883".to_owned(), Duration::from_secs(1));
    for seconds in [3_600, 3_602, 3_604] {
        board.take(reading(begun, seconds));
    }
    board
}

fn drawn(board: &Board, (columns, rows): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("in memory");
    terminal
        .draw(|frame| screen::draw(board, Instant::now(), frame))
        .expect("in memory");
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(columns)).map(|line| {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    let lines: Vec<_> = lines.collect();
    if std::env::var_os("RINGMQ_TEST_SCREENSHOTS").is_some() {
        println!("{}\n{}", "-".repeat(usize::from(columns)), lines.join("\n"));
    }
    lines
}

fn press(board: &mut Board, keys: &[KeyCode]) -> Wish {
    let mut wish = Wish::Show;
    for key in keys {
        wish = board.press(KeyEvent::new(*key, KeyModifiers::NONE));
    }
    wish
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

#[track_caller]
fn shows(lines: &[String], wanted: &[&str]) {
    for text in wanted {
        let is_there = lines.iter().any(|line| line.contains(text));
        assert!(is_there, "no '{text}' in:\n{}", lines.join("\n"));
    }
}

#[test]
fn all_of_it_is_on_a_terminal_of_80_columns_and_24_rows() {
    let lines = drawn(&board(), (80, 24));
    shows(
        &lines,
        &[
            "ringmq 0.1.0 at http://127.0.0.1:14883",
            "up 1h 0m, every 1s",
            "conns 18000  sessions 20120  subs 40000  retained 1200  queued 55  mem 512 MiB",
            "in 150/s, 8.0 KiB/s  out 360k/s, 18 MiB/s  refused 0/s  lost 6/s",
            "QoS 0, same shard   512 us 512 us 512 us",
            "QoS 1, other shard  4.1 ms",
            "SHARD▼   CPU  CONNS  IN/S  OUT/S   TURN",
            "0       37 %   9000    50   120k 128 us",
            "SLOW CLIENT",
            "LOUD CLIENT",
            "q quit",
        ],
    );
    let row = lines.iter().find(|line| line.starts_with("meter-7"));
    let words: Vec<_> = row.expect("a row").split_whitespace().collect();
    assert_eq!(words, ["meter-7", "1", "1.5s", "7", "10", "B", "2"]);
    // What a client chose moves nothing.
    shows(&lines, &["Meter-\\u{1b}[2J"]);
}

#[test]
fn every_size_is_drawn() {
    let mut board = board();
    for (columns, rows) in [(1, 1), (59, 15), (60, 16), (80, 24), (132, 43), (300, 100)] {
        for kind in Kind::ALL {
            board.kind = kind;
            drawn(&board, (columns, rows));
        }
    }
    board.kind = Kind::Shards;
    shows(&drawn(&board, (60, 16)), &["SHARD▼ "]);
    board.kind = Kind::SlowClients;
    shows(&drawn(&board, (60, 16)), &["QoS 0, same shard "]);
    shows(&drawn(&board, (60, 10)), &["60x10 is too small"]);
    shows(
        &drawn(&board, (132, 43)),
        &["SLOW CLIENT", "LOUD CLIENT", "LOUD TOPICS"],
    );
}

#[test]
fn what_has_no_room_is_left_out_whole() {
    let mut board = board();
    board.figures.dropped_by_reason = vec![
        ("queue full".to_owned(), 289.0),
        ("client absent".to_owned(), 30.0),
        ("outbox full".to_owned(), 8.0),
    ];
    board.figures.dropped_per_second = Some(327.0);
    let line = |columns, start: &str| {
        let lines = drawn(&board, (columns, 24));
        let line = lines.iter().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no '{start}' in:\n{}", lines.join("\n")))
            .clone()
    };
    let rates = "in 150/s, 8.0 KiB/s  out 360k/s, 18 MiB/s  refused 0/s  lost 327/s";
    let all = " (queue full 289, client absent 30, outbox full 8)";
    assert_eq!(line(132, "in 1"), format!("{rates}{all}"));
    assert_eq!(line(100, "in 1"), format!("{rates} (queue full 289, ...)"));
    assert_eq!(line(80, "in 1"), rates);
    assert_eq!(
        line(60, "in 1"),
        "in 150/s  out 360k/s  refused 0/s  lost 327/s"
    );
    assert_eq!(
        line(60, "conns"),
        "conns 18000  sessions 20120  queued 55  mem 512 MiB"
    );
    assert_eq!(
        line(60, "q quit"),
        "q quit  Tab list  s sort  / filter  p pause  ? help"
    );
    board.place = "unix:///run/ringmq/a-long-name/admin.sock".to_owned();
    let title = drawn(&board, (60, 16)).swap_remove(0);
    assert_eq!(
        title,
        "ringmq 0.1.0 at unix:///run/ringmq/a-...  up 1h 0m, every 1s"
    );
}

#[test]
fn keys_sort_filter_scroll_and_pause() {
    let mut board = board();
    let first = |board: &Board| board.rows(board.kind)[0].name.clone();
    assert_eq!(first(&board), "meter-7");
    // By messages, which are equal; by bytes; the other way round.
    press(&mut board, &typed("ss"));
    assert_eq!(first(&board), "Meter-\\u{1b}[2J");
    shows(&drawn(&board, (80, 24)), &["BYTES▼"]);
    press(&mut board, &typed("r"));
    assert_eq!(first(&board), "meter-7");
    press(&mut board, &typed("/7q"));
    assert!(board.rows(Kind::SlowClients).is_empty());
    shows(&drawn(&board, (80, 24)), &["filter: 7q_"]);
    press(&mut board, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(board.rows(Kind::SlowClients).len(), 1);
    assert_eq!(board.rows(Kind::Shards).len(), 2, "those have no names");
    shows(&drawn(&board, (80, 24)), &["only \"7\" (Esc: all)"]);
    assert_eq!(press(&mut board, &[KeyCode::Esc]), Wish::Show);
    assert_eq!(board.rows(Kind::SlowClients).len(), 2);
    press(&mut board, &[KeyCode::Down, KeyCode::Down, KeyCode::Down]);
    assert_eq!(board.above, 1, "the last one stays");
    press(&mut board, &[KeyCode::Tab]);
    assert_eq!((board.kind, board.above), (Kind::LoudClients, 0));
    press(&mut board, &[KeyCode::BackTab, KeyCode::BackTab]);
    assert_eq!(board.kind, Kind::Shards);
    assert_eq!(press(&mut board, &typed("p")), Wish::Show);
    shows(&drawn(&board, (80, 24)), &["paused"]);
    assert_eq!(press(&mut board, &typed("p")), Wish::Ask);
    press(&mut board, &typed("+"));
    assert_eq!(board.every, Duration::from_millis(500));
    press(&mut board, &typed("?"));
    shows(
        &drawn(&board, (80, 24)),
        &["q, Esc, Ctrl-C   quit", "power of two"],
    );
    assert_eq!(
        press(&mut board, &typed("q")),
        Wish::Show,
        "it ends the help"
    );
    assert_eq!(press(&mut board, &typed("q")), Wish::Leave);
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(board.press(control), Wish::Leave);
}

#[test]
fn a_broker_that_does_not_tell_is_named_and_what_is_wrong_with_one_too() {
    let mut board = board();
    let now = Instant::now();
    board.miss(
        now,
        "no broker is reached at http://127.0.0.1:14883: connection refused",
    );
    board.miss(now + Duration::from_secs(60), "no broker is reached");
    let lines = drawn(&board, (80, 24));
    shows(
        &lines,
        &["for 0s: no broker is reached", "in -/s", "meter-7"],
    );
    let mut reading = reading(now, 4_000);
    reading.status.problems = vec!["shard 1 has not turned for 5 s".to_owned()];
    board.take(reading);
    shows(
        &drawn(&board, (80, 24)),
        &["shard 1 has not turned for 5 s"],
    );
}

#[test]
fn the_board_is_a_text_too() {
    let told = text(&board());
    for wanted in [
        "sent            360k/s",
        "LATENCY UP TO",
        "SHARD",
        "SLOW CLIENT",
        "LOUD TOPICS",
    ] {
        assert!(told.contains(wanted), "no '{wanted}' in:\n{told}");
    }
}
