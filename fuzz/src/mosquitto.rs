//! Any bytes as Mosquitto's persistence file: they are refused by name or make records that are a store's.

use ringmq::storage::image::Image;
use ringmq::storage::tool::import::{ImportConfig, OfBridge, records};
use ringmq::storage::tool::mosquitto::read;

/// Reads a file and plays back what would be written.
pub fn mosquitto(input: &[u8]) {
    let persisted = match read(input) {
        Ok(persisted) => persisted,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let config = ImportConfig {
        shards: 3,
        users: true,
        bridges: vec![OfBridge::by_client_id("b", "hq", "")],
    };
    let (shards, report) = records(&persisted, &config, 1_000);
    let parts = persisted.entries.len() + persisted.messages.len() + persisted.clients.len();
    assert!(report.left_out.len() <= parts + persisted.subscriptions.len());
    for (shard, records) in shards {
        assert!(shard < config.shards);
        let mut image = Image::default();
        for record in records {
            let applied = image.apply(record);
            applied.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
