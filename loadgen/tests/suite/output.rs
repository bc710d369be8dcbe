//! What comes out: tables, JSON, HdrHistogram's files, pages.

use crate::support::{Broker, Scratch, clean, loadgen, or_limited, text};
use std::process::Command;

#[test]
fn the_table_names_throughput_latency_verification_and_cost() {
    let broker = Broker::start();
    let pid = broker.pid();
    let args = ["fanout", "--messages=50", "--window=4", "--pid", &pid];
    let output = loadgen(&broker.address, &args);
    let table = text(&output.stdout);
    let code = output.status.code().unwrap();
    assert_eq!(or_limited(code, 0), 0, "{table}{}", text(&output.stderr));
    let (word, _) = table
        .split_once(": fanout at ")
        .expect("the verdict is the first word");
    let words = ["clean", "generator-bound", "machine-bound"];
    assert!(words.contains(&word), "{table}");
    for wanted in [
        "delivered            50000 messages",
        "p99.99",
        "publish to deliver",
        "QoS 0: 50000 checked: lost 0, duplicated 0, reordered 0, corrupt 0",
        "owed deliveries: 50000 of 50000 came",
        "per delivery: broker",
    ] {
        assert!(table.contains(wanted), "{wanted}: {table}");
    }
    // Not a terminal: plain lines of progress.
    let progress = text(&output.stderr);
    assert!(
        progress.contains("delivered") && !progress.contains('\x1b'),
        "{progress}"
    );
}

#[test]
fn percentile_and_interval_files_hold_every_delivery() {
    let broker = Broker::start();
    let (hgrm, hlog) = (Scratch::new("x.hgrm"), Scratch::new("x.hlog"));
    let args = [
        "fanout",
        "--subscribers=10",
        "--messages=300",
        "--rate=200",
        "--hgrm",
        hgrm.as_str(),
        "--hlog",
        hlog.as_str(),
    ];
    let json = clean(&broker.address, &args);
    let word = json["verdict"].as_str().unwrap().replace('_', "-");
    let percentiles = std::fs::read_to_string(&hgrm.0).unwrap();
    assert!(percentiles.contains("1/(1-Percentile)"), "{percentiles}");
    assert!(
        percentiles.contains("Total count    =         3000"),
        "{percentiles}"
    );
    assert!(
        percentiles.contains(&format!("#[Verdict = {word}]")),
        "{percentiles}"
    );
    let log = std::fs::read_to_string(&hlog.0).unwrap();
    assert!(log.ends_with(&format!("#[verdict: {word}]\n")), "{log}");
    let intervals = log
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(",HISTF"));
    assert!(intervals.count() >= 2, "{log}");
}

#[test]
fn runs_become_one_page_and_plots() {
    let broker = Broker::start();
    let results = [Scratch::new("one.json"), Scratch::new("two.json")];
    for (result, window) in results.iter().zip(["1", "4"]) {
        let args = [
            "fanout",
            "--subscribers=5",
            "--duration=2500ms",
            "--window",
            window,
        ];
        let json = clean(&broker.address, &args);
        std::fs::write(&result.0, json.to_string()).unwrap();
    }
    let (page, folder) = (Scratch::new("page.html"), Scratch::new("plots"));
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "report",
            results[0].as_str(),
            results[1].as_str(),
            "--title",
            "A <title>",
        ])
        .args(["--html", page.as_str(), "--svg", folder.as_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let html = std::fs::read_to_string(&page.0).unwrap();
    assert!(html.contains("A &lt;title&gt;") && html.matches("<svg").count() >= 3);
    assert!(
        !html.contains("src=") && !html.contains("href="),
        "the page needs nothing else"
    );
    for plot in [
        "fanout-latency.svg",
        "fanout-throughput.svg",
        "fanout-deliveries.svg",
    ] {
        let svg = std::fs::read_to_string(folder.0.join(plot)).unwrap();
        assert!(
            svg.contains("one") && svg.contains("two"),
            "{plot} names both runs"
        );
    }
}

#[test]
fn what_is_no_result_is_named() {
    let bad = Scratch::new("bad.json");
    std::fs::write(&bad.0, "{\"x\":1}").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["report", bad.as_str(), "--html", "/nowhere/x.html"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(bad.as_str()) && said.contains("not a result"),
        "{said}"
    );
}
