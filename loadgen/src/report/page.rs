//! `loadgen report`: results as one self-contained HTML page, and as SVG.

use super::json::RunRecord;
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
            let command = escape(&run.record.command.join(" "));
            let host = &run.record.host;
            let _ = writeln!(
                out,
                "<p>{}, on {} (Linux {}, {} CPUs for the generator):</p><pre>{command}</pre>",
                escape(&run.label),
                escape(&host.name),
                escape(&host.kernel),
                host.cpus
            );
            for warning in &run.record.warnings {
                let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(warning));
            }
        }
    }
    out.push_str("</body></html>\n");
    Ok(out)
}

fn table(runs: &[&Labelled], out: &mut String) {
    out.push_str(
        "<table><tr><th>run</th><th>clean</th><th>published/s</th><th>delivered/s</th>\
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
            if record.is_clean { "yes" } else { "no" }.to_owned(),
            format!("{:.0}", record.published.messages_per_second),
            format!("{:.0}", record.delivered.messages_per_second),
            ms(latency.map(|l| l.p50)),
            ms(latency.map(|l| l.p99)),
            ms(latency.map(|l| l.p99_9)),
            ms(latency.map(|l| l.max)),
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
