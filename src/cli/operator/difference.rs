//! What a reload of a configuration would change in a running broker, before it is done.

use super::reach::{Reach, ReachArgs};
use super::{Answer, Failure, Line};
use crate::control::config::{BridgeConfig, Change, Config, Effect};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// What to check, and beside which broker.
#[derive(Clone, Debug, Args)]
pub struct CheckConfigArgs {
    /// The file
    pub file: PathBuf,
    /// Ask the broker that runs, where that file says, what it goes by, and say what a reload would change
    /// and what needs a restart
    #[arg(long)]
    pub against_running: bool,
    /// Where the broker answers operators, if not where the file says: http://HOST:PORT, https://HOST:PORT or
    /// unix:///PATH
    #[arg(long, value_name = "URL", requires = "against_running")]
    pub admin: Option<String>,
    /// File with the token alone, as `ringmq token` has printed it; also RINGMQ_OPERATOR_TOKEN, the token
    /// itself
    #[arg(long, value_name = "FILE", requires = "against_running")]
    pub token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust at https:// [default: the system's]
    #[arg(long, value_name = "FILE", requires = "against_running")]
    pub ca: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, requires = "against_running")]
    pub json: bool,
}

impl CheckConfigArgs {
    /// Where the broker is.
    ///
    /// # Errors
    /// Which flag, variable or key is wrong.
    pub(super) fn reach(&self, config: &Config) -> Result<Reach, Failure> {
        let args = ReachArgs {
            admin: self.admin.clone(),
            config: Some(self.file.clone()),
            token_file: self.token_file.clone(),
            ca: self.ca.clone(),
            json: self.json,
        };
        let variable = |name: &str| std::env::var(name).ok();
        Reach::new(&args, variable, |_| Ok(config.admin.clone()))
    }
}

/// Compares a configuration with that of a running broker.
pub(super) async fn differ(line: &mut Line, config: &Config) -> Result<Answer, Failure> {
    let running = line.get("/config").await?;
    let said = running.get("said").and_then(Value::as_object);
    let overridden = running.get("overridden").and_then(Value::as_array);
    let overridden = overridden.into_iter().flatten().filter_map(Value::as_str);
    let overridden: Vec<_> = overridden.map(str::to_owned).collect();
    let changes = config
        .said
        .changes_from(said.cloned().unwrap_or_default(), &overridden);
    let of = |effect: Effect| -> Vec<String> {
        let of_effect = changes.iter().filter(|change| change.effect == effect);
        of_effect.map(Change::to_string).collect()
    };
    let (running, restart) = (of(Effect::Running), of(Effect::Restart));
    let mut lines: Vec<_> = running
        .iter()
        .map(|change| format!("a reload would change {change}\n"))
        .collect();
    lines.extend(
        restart
            .iter()
            .map(|change| format!("needs a restart: {change}\n")),
    );
    let drops = drops(line, config, &changes).await?;
    lines.extend(drops.iter().map(|drop| format!("a reload {drop}\n")));
    if lines.is_empty() {
        lines.push("a reload would change nothing\n".to_owned());
    }
    Ok(Answer {
        text: lines.concat(),
        json: json!({ "would_change": running, "needs_restart": restart, "would_drop": drops }),
        ..Answer::default()
    })
}

/// What waits for bridges, or connections of them, that a reload would end with their sessions.
async fn drops(
    line: &mut Line,
    config: &Config,
    changes: &[Change],
) -> Result<Vec<String>, Failure> {
    if changes.iter().all(|change| change.bridge().is_none()) {
        return Ok(Vec::new());
    }
    let told = line.get("/bridges").await?;
    let bridges = told.get("bridges").and_then(Value::as_array);
    let mut drops = Vec::new();
    for bridge in bridges.into_iter().flatten() {
        let name = bridge.get("name").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        let count = |key| bridge.get(key).and_then(Value::as_u64).unwrap_or(0);
        let waits = count("queued") + count("in_flight");
        let stays = config.bridges.iter().find(|it| *it.name == *name);
        if let Some(why) = why_dropped(stays, changes).filter(|_| waits > 0) {
            drops.push(format!(
                "would drop {waits} messages that wait for bridge {name}, {why}"
            ));
        }
    }
    Ok(drops)
}

/// Why what waits for a bridge would be dropped, if it would.
fn why_dropped(stays: Option<&Arc<BridgeConfig>>, changes: &[Change]) -> Option<&'static str> {
    let Some(bridge) = stays else {
        return Some("which it would remove");
    };
    let is_its = |change: &&Change| change.bridge() == Some(&*bridge.stands_as);
    let mut altered = changes.iter().filter(is_its).peekable();
    altered.peek()?;
    if !bridge.is_persistent {
        return Some("which is not persistent");
    }
    let has_other_user = altered.any(|change| change.is_of("bridge.local_user"));
    has_other_user.then_some("whose local_user is another one")
}
