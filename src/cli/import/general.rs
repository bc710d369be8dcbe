//! What concerns the whole broker: from Mosquitto's lines to our keys.

use super::draft::Draft;
use super::lines::Line;
use super::value::{is_false, is_true, number, seconds};
use super::without;
use crate::engine::limits::{PACKET_BYTES_MAX, PACKET_BYTES_MIN};

/// Where the package and the unit keep state.
const STATE: &str = "/var/lib/ringmq";
/// What stands for Mosquitto's "no limit" where 0 means nothing at all here.
const NO_LIMIT: i64 = 1 << 40;
/// Less than this is too little for any broker of ours.
const MEMORY_BYTES_MIN: i64 = 64 << 20;
/// What a packet may have besides its payload.
const BESIDES_PAYLOAD_BYTES: i64 = 65_536;

/// What lines say together.
#[derive(Debug, Default)]
pub(super) struct General {
    packet_bytes: Vec<i64>,
    log_files: usize,
    log_levels: Vec<&'static str>,
    log_elsewhere: Vec<Line>,
    persists: Option<(Line, bool)>,
    state_file: Option<String>,
    state_folder: Option<Line>,
}

impl General {
    /// Takes a line, or tells what to do about it.
    pub(super) fn take(&mut self, line: &Line, draft: &mut Draft) {
        match line.key.as_str() {
            "per_listener_settings" => {}
            "acl_file" => file("acl_file", line, draft),
            "password_file" => file("password_file", line, draft),
            "allow_anonymous" => truth("allow_anonymous", line, draft),
            "retain_available" => truth("mqtt.retain_available", line, draft),
            "log_dest" => self.log_to(line, draft),
            "log_type" => self.log_what(line, draft),
            "persistence" => self.persists = Some((line.clone(), is_true(line))),
            "persistence_file" => self.state_file = Some(line.value.clone()),
            "persistence_location" => self.state_folder = Some(line.clone()),
            "auth_opt_files_acl_path" => file("acl_file", line, draft),
            "auth_opt_files_password_path" => draft.note(
                line,
                "its hashes are not read here: make the users anew with `ringmq passwd`, and name that file \
                 as password_file",
            ),
            _ if self.take_bound(line, draft) => {}
            _ if is_off(line) => {}
            _ => without::tell(line, draft),
        }
    }

    /// Takes a line that is a number; whether it is one that is known.
    fn take_bound(&mut self, line: &Line, draft: &mut Draft) -> bool {
        match line.key.as_str() {
            "max_inflight_messages" => bound("limits.inflight_max", line, 65_535, draft),
            "max_queued_bytes" => bound("limits.queue_bytes_max", line, NO_LIMIT, draft),
            "max_queued_messages" => bound("limits.queue_messages_max", line, NO_LIMIT, draft),
            "global_max_connections" => {
                if let Some(max) = number(line, -1..=100_000_000, draft).filter(|max| *max > 0) {
                    draft.set("limits.connections_max", max);
                }
            }
            "max_keepalive" => {
                if let Some(most) = number(line, 0..=65_535, draft) {
                    draft.set("mqtt.keep_alive_seconds_max", most);
                    draft.note(
                        line,
                        "taken, with more to it: clients of 3.x, which cannot be told, are disconnected as \
                         well when they are silent for one and a half times as long",
                    );
                }
            }
            "max_packet_size" => {
                if line.value != "0" {
                    let range = PACKET_BYTES_MIN as i64..=PACKET_BYTES_MAX as i64;
                    self.packet_bytes.extend(number(line, range, draft));
                } else {
                    self.packet_bytes.push(PACKET_BYTES_MAX as i64);
                }
            }
            "message_size_limit" => self.take_payload_bound(line, draft),
            "memory_limit" => take_memory(line, draft),
            "persistent_client_expiration" => match seconds(&line.value) {
                Some(seconds) => {
                    draft.set("session.expiry_seconds_max", seconds.min(u32::MAX.into()))
                }
                None => draft.note(
                    line,
                    "left out: a number and one of h, d, w, m, y are expected",
                ),
            },
            "sys_interval" => {
                if let Some(seconds) = number(line, 0..=31_536_000, draft) {
                    draft.set("mqtt.sys_interval_s", seconds);
                }
            }
            _ => return false,
        }
        true
    }

    fn take_payload_bound(&mut self, line: &Line, draft: &mut Draft) {
        if line.value == "0" {
            return;
        }
        let most = PACKET_BYTES_MAX as i64 - BESIDES_PAYLOAD_BYTES;
        if let Some(bytes) = number(line, 1..=most, draft) {
            self.packet_bytes.push(bytes + BESIDES_PAYLOAD_BYTES);
            draft.note(
                line,
                "limits.max_packet_bytes is so much and 64 KiB for topic and properties: who sends more is \
                 disconnected, where Mosquitto drops the message",
            );
        }
    }

    fn log_to(&mut self, line: &Line, draft: &mut Draft) {
        let (kind, rest) = line.value.split_once(' ').unwrap_or((&line.value, ""));
        match kind {
            "file" if self.log_files == 0 => {
                self.log_files += 1;
                draft.set("log_file", rest.trim());
                if rest.contains("/mosquitto/") {
                    draft.note(
                        line,
                        "taken as it is; under scripts/ringmq.service the broker may write to \
                         /var/log/ringmq alone: name a file there",
                    );
                }
            }
            "stderr" | "stdout" => self.log_elsewhere.push(line.clone()),
            "none" => draft.set("log_file", "/dev/null"),
            "syslog" => draft.note(
                line,
                "the log goes to standard error, which journald takes with priorities under systemd",
            ),
            "topic" => draft.note(
                line,
                "nothing is published of the log; `GET /api/v1/status` and /metrics tell programs how the \
                 broker is",
            ),
            _ => draft.note(line, "left out: the log goes to standard error or to one log_file"),
        }
    }

    fn log_what(&mut self, line: &Line, draft: &mut Draft) {
        for kind in line.value.split_whitespace() {
            self.log_levels.push(match kind {
                "error" | "none" => "error",
                "warning" => "warn",
                "notice" | "information" | "subscribe" | "unsubscribe" | "websockets" => "info",
                "debug" | "all" => "debug",
                _ => {
                    draft.note(line, "left out: no such kind of messages is known");
                    continue;
                }
            });
            if kind == "none" {
                draft.note(line, "errors are logged all the same");
            }
        }
    }

    /// Says what follows from several lines.
    pub(super) fn finish(self, draft: &mut Draft) {
        let most = self.packet_bytes.iter().min();
        match most {
            Some(bytes) => draft.set("limits.max_packet_bytes", *bytes),
            None => draft.remark(
                "max_packet_size is not said",
                "here a packet has 2 MiB at most (limits.max_packet_bytes), in Mosquitto 2.0 as much as MQTT \
                 allows: raise it where payloads are larger, up to 268435460",
            ),
        }
        let levels = ["debug", "info", "warn", "error"];
        if let Some(level) = levels
            .into_iter()
            .find(|level| self.log_levels.contains(level))
        {
            draft.set("log", level);
        }
        for line in &self.log_elsewhere {
            if draft.says("log_file") {
                draft.note(
                    line,
                    "log_file takes the place of standard error: the log goes to one of them",
                );
            } else if line.value == "stdout" {
                draft.note(
                    line,
                    "the log goes to standard error, from where services and containers take it as well",
                );
            }
        }
        self.finish_state(draft);
    }

    fn finish_state(self, draft: &mut Draft) {
        match self.persists {
            Some((line, true)) => {
                draft.set("storage.directory", STATE);
                let file = self.state_file.unwrap_or_else(|| "mosquitto.db".to_owned());
                let from = self
                    .state_folder
                    .as_ref()
                    .map(Line::path)
                    .unwrap_or_default();
                draft.note(
                    &line,
                    format!(
                        "state is kept in {STATE} (storage.directory), empty at first. To take over \
                         Mosquitto's: stop it, then `ringmq store import-mosquitto {} --to {STATE} --shards \
                         N` as the broker's user, with N as many as it runs shards",
                        from.join(file).display()
                    ),
                );
            }
            // The unit says a directory by environment.
            Some((_, false)) => draft.set("storage.level", "memory"),
            None => {}
        }
    }
}

/// Whether a line turns off what is not here anyway.
fn is_off(line: &Line) -> bool {
    const SWITCHES: [&str; 6] = [
        "allow_duplicate_messages",
        "autosave_on_changes",
        "check_retain_source",
        "queue_qos0_messages",
        "set_tcp_nodelay",
        "upgrade_outgoing_qos",
    ];
    is_false(line) && SWITCHES.contains(&line.key.as_str())
        || is_true(line)
            && ["allow_zero_length_clientid", "connection_messages"].contains(&line.key.as_str())
}

fn truth(key: &'static str, line: &Line, draft: &mut Draft) {
    if is_true(line) || is_false(line) {
        draft.set(key, is_true(line));
    } else {
        draft.note(line, "left out: it is neither true nor false");
    }
}

/// A bound of which Mosquitto's 0 means that there is none.
fn bound(key: &'static str, line: &Line, none: i64, draft: &mut Draft) {
    if let Some(max) = number(line, 0..=none, draft) {
        draft.set(key, if max == 0 { none } else { max });
    }
}

fn take_memory(line: &Line, draft: &mut Draft) {
    match line.value.parse::<i64>() {
        Ok(0) => {}
        Ok(bytes) if bytes >= MEMORY_BYTES_MIN => draft.set("limits.memory_max_bytes", bytes),
        _ => draft.note(
            line,
            "left out: a broker of ours needs some 20 MiB and 8 MiB for each shard before anybody comes; say \
             limits.memory_max_bytes, or let the control group's bound count (MemoryMax=, docker -m)",
        ),
    }
}

/// A file by its whole name.
pub(super) fn file(key: &'static str, line: &Line, draft: &mut Draft) {
    draft.set(key, shown(line));
    tell_loose(line, draft);
}

/// The file that a line names, as text.
pub(super) fn shown(line: &Line) -> String {
    line.path().display().to_string()
}

/// Says so if nobody knows which file is meant.
pub(super) fn tell_loose(line: &Line, draft: &mut Draft) {
    if line.has_loose_path() {
        draft.note(
            line,
            format!(
                "taken as {}: Mosquitto looks for it where it is started; mend it if that is elsewhere",
                line.path().display()
            ),
        );
    }
}
