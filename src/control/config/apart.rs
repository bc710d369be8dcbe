//! What tells a broker apart from others whose host has the same name, at each start the same: bridges'
//! client identifiers are made of it, so that two of them do not take each other's sessions over.

use super::file::FileConfig;
use aws_lc_rs::digest::{SHA256, digest};

/// Where systems keep what no other machine has; containers have none, but names of their own.
const MACHINE_FILE: &str = "/etc/machine-id";
/// Letters of it.
const LETTERS: usize = 8;

/// The broker's name, if it is said; else letters made of the machine, of where its state is, and without
/// that of where it listens.
pub(super) fn of_broker(raw: &FileConfig) -> Box<str> {
    if let Some(name) = raw
        .mqtt
        .broker_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        return name.into();
    }
    let machine = std::fs::read_to_string(MACHINE_FILE).unwrap_or_default();
    of(&machine, raw)
}

fn of(machine: &str, raw: &FileConfig) -> Box<str> {
    let place = match &raw.storage.directory {
        Some(directory) => directory.display().to_string(),
        None => {
            let listeners = raw.listener.iter().flatten().map(|it| it.url.clone());
            let all = raw.listen.iter().flatten().cloned().chain(listeners);
            all.collect::<Vec<_>>().join(" ")
        }
    };
    let hash = digest(&SHA256, format!("{}\n{place}", machine.trim()).as_bytes());
    let bytes = hash.as_ref().iter().take(LETTERS / 2);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_of_one_host_name_are_told_apart_and_stay_so() {
        let of_text = |machine: &str, text: &str| of(machine, &toml::from_str(text).unwrap());
        let one = of_text("m", "storage.directory = \"/a\"\nlisten = [\"mqtt://:1\"]");
        assert_eq!(one.len(), LETTERS);
        let moved = of_text("m", "storage.directory = \"/a\"\nlisten = [\"mqtt://:2\"]");
        assert_eq!(one, moved, "its state is where it was");
        for (machine, text) in [
            ("m", "storage.directory = \"/b\""),
            ("n", "storage.directory = \"/a\""),
            ("m", "listen = [\"mqtt://:1\"]"),
            ("m", "listen = [\"mqtt://:2\"]"),
        ] {
            assert_ne!(one, of_text(machine, text), "{machine} {text}");
        }
        let named = toml::from_str("mqtt.broker_name = \"north\"").unwrap();
        assert_eq!(&*of_broker(&named), "north");
    }
}
