//! Load generator for MQTT brokers: arguments to scenario to report.
//!
//! It has its own codec: a bug shared with a broker would cancel itself out. Exit codes: 0 for a run
//! that saw what its QoS promises, 1 for one that did not or could not run, 2 for bad arguments.

mod args;
mod client;
mod codec;
mod fanout;
mod report;
mod verify;

use args::{Args, Scenario};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let Scenario::Fanout(fanout) = &args.scenario;
    match fanout::run(fanout) {
        Ok(report) => {
            print!(
                "{}",
                if fanout.json {
                    report.json()
                } else {
                    report.table()
                }
            );
            if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}
