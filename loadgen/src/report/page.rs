//! `loadgen report`: results as one self-contained HTML page, and as SVG.

use super::json::{RunRecord, date};
use super::plot::{self, Labelled};
use crate::args::Report;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:980px;margin:2em auto;\
padding:0 1em;color:#222}table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;\
padding:.25em .6em;text-align:right}td:first-child,th:first-child{text-align:left}\
pre{background:#f4f4f4;padding:.6em;overflow:auto}.warning{color:#a33}svg{max-width:100%;height:auto}";

/// Reads the runs and writes what was asked for; returns what to print.
///
/// # Errors
/// A message that names the file.
pub fn render(args: &Report) -> Result<String, String> {
    if args.html.is_none() && args.svg.is_none() {
        return Err("say where to: --html FILE or --svg FOLDER".into());
    }
    let mut runs = Vec::new();
    for path in &args.runs {
        runs.extend(read(path)?);
    }
    let mut said = String::new();
    if let Some(folder) = &args.svg {
        fs::create_dir_all(folder).map_err(|e| cannot_write(folder, &e))?;
        for (scenario, runs) in by_scenario(&runs) {
            for (name, svg) in plots(runs)? {
                let path = folder.join(format!("{}-{name}.svg", file_name(scenario)));
                fs::write(&path, svg).map_err(|e| cannot_write(&path, &e))?;
                let _ = writeln!(said, "{}", path.display());
            }
        }
    }
    if let Some(path) = &args.html {
        fs::write(path, page(&args.title, &runs)?).map_err(|e| cannot_write(path, &e))?;
        let _ = writeln!(said, "{}", path.display());
    }
    Ok(said)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// A file holds one document, or one per line.
fn read(path: &Path) -> Result<Vec<Labelled>, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let stem = path
        .file_stem()
        .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let records: Result<Vec<RunRecord>, _> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect();
    let records = records
        .map_err(|error| format!("{} is not a result of --json: {error}", path.display()))?;
    if records.is_empty() {
        return Err(format!("{} holds no result", path.display()));
    }
    let is_one = records.len() == 1;
    let labelled = records
        .into_iter()
        .enumerate()
        .map(|(nth, record)| Labelled {
            label: if is_one {
                stem.clone()
            } else {
                format!("{stem} {}", nth + 1)
            },
            record,
        });
    Ok(labelled.collect())
}

/// Runs of one scenario stand together, in the order in which they were given.
fn by_scenario(runs: &[Labelled]) -> Vec<(&str, Vec<&Labelled>)> {
    let mut groups: Vec<(&str, Vec<&Labelled>)> = Vec::new();
    for run in runs {
        let scenario = run.record.scenario.as_str();
        match groups.iter_mut().find(|(name, _)| *name == scenario) {
            Some((_, members)) => members.push(run),
            None => groups.push((scenario, vec![run])),
        }
    }
    groups
}

fn file_name(text: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    text.chars().map(safe).collect()
}

fn plots(runs: Vec<&Labelled>) -> Result<Vec<(&'static str, String)>, String> {
    let owned: Vec<Labelled> = runs
        .into_iter()
        .map(|run| Labelled {
            label: run.label.clone(),
            record: run.record.clone(),
        })
        .collect();
    let cpu = |record: &RunRecord| record.per_delivery.and_then(|cost| cost.broker_us);
    let rate = |record: &RunRecord| {
        let rate = record.delivered.messages_per_second;
        (record.delivered.messages > 0).then_some(rate)
    };
    let all = [
        ("latency", plot::percentiles(&owned, "deliver")?),
        ("replay", plot::percentiles(&owned, "replay")?),
        ("connect", plot::percentiles(&owned, "connect")?),
        ("throughput", plot::throughput(&owned)?),
        ("p99-over-time", plot::latency_over_time(&owned)?),
        (
            "deliveries",
            plot::bars(&owned, "deliveries per second", rate)?,
        ),
        (
            "cpu",
            plot::bars(&owned, "broker CPU per delivery in us", cpu)?,
        ),
    ];
    let drawn = all.into_iter().filter_map(|(name, svg)| Some((name, svg?)));
    Ok(drawn.collect())
}

fn page(title: &str, runs: &[Labelled]) -> Result<String, String> {
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1>\n"
    );
    for (scenario, members) in by_scenario(runs) {
        let _ = writeln!(out, "<h2>{}</h2>", escape(scenario));
        table(&members, &mut out);
        for (_, svg) in plots(members.clone())? {
            let _ = writeln!(out, "<figure>{svg}</figure>");
        }
        for run in members {
            origin(run, &mut out);
        }
    }
    out.push_str("</body></html>\n");
    Ok(out)
}

/// When, where, with what and how a run was made, and what has to be known of it.
fn origin(run: &Labelled, out: &mut String) {
    let record = &run.record;
    let host = &record.host;
    let mut facts = vec![
        date(record.ended_unix_s),
        format!("{}, Linux {}", host.name, host.kernel),
        format!("{} {} CPUs for the generator", host.cpu_model, host.cpus),
        format!("loadgen {} {}", record.loadgen, record.loadgen_commit),
        format!("broker at {}", record.broker),
    ];
    facts.extend(host.governor.as_ref().map(|g| format!("governor {g}")));
    facts.extend(record.broker_version.clone());
    if record.schema >= 2 {
        facts.push(format!("seed {}", record.seed));
        let load = |load: Option<f64>| load.map_or_else(|| "?".into(), |load| format!("{load:.2}"));
        let (before, after) = (record.limits.load_before, record.limits.load_after);
        facts.push(format!(
            "load {} before, {} after",
            load(before),
            load(after)
        ));
    }
    let _ = writeln!(
        out,
        "<h3>{}: {}</h3><p>{}</p><pre>{}</pre>",
        escape(&run.label),
        record.words(),
        escape(&facts.join("; ")),
        escape(&shown(&record.command))
    );
    for warning in &record.warnings {
        let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(warning));
    }
}

/// A command without the password that old ones may hold.
fn shown(command: &[String]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in command {
        let hides = words.last() == Some(&"--password");
        words.push(match word {
            _ if hides => "***",
            word if word.starts_with("--password=") => "--password=***",
            word => word,
        });
    }
    words.join(" ")
}

fn table(runs: &[&Labelled], out: &mut String) {
    out.push_str(
        "<table><tr><th>run</th><th>verdict</th><th>published/s</th><th>delivered/s</th>\
         <th>p50 ms</th><th>p99 ms</th><th>p99.9 ms</th><th>max ms</th><th>lost</th>\
         <th>broker CPU us</th><th>loadgen CPU us</th></tr>\n",
    );
    for run in runs {
        let record = &run.record;
        let latencies = ["deliver", "replay", "connect"];
        let latency = latencies.iter().find_map(|name| record.latency.get(*name));
        let ms = |ns: Option<u64>| match ns {
            Some(ns) => format!("{:.3}", ns as f64 / 1e6),
            None => "-".into(),
        };
        let us = |us: Option<f64>| us.map_or_else(|| "-".into(), |us| format!("{us:.3}"));
        let lost: u64 = record.breaches.iter().map(|b| b.lost).sum();
        let cells = [
            escape(record.words()),
            format!("{:.0}", record.published.messages_per_second),
            format!("{:.0}", record.delivered.messages_per_second),
            ms(latency.map(|l| l.p50_ns)),
            ms(latency.map(|l| l.p99_ns)),
            ms(latency.map(|l| l.p99_9_ns)),
            ms(latency.map(|l| l.max_ns)),
            lost.to_string(),
            us(record.per_delivery.and_then(|cost| cost.broker_us)),
            us(record.per_delivery.map(|cost| cost.own_us)),
        ];
        let cells: String = cells
            .iter()
            .map(|cell| format!("<td>{cell}</td>"))
            .collect();
        let _ = writeln!(out, "<tr><td>{}</td>{cells}</tr>", escape(&run.label));
    }
    out.push_str("</table>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
