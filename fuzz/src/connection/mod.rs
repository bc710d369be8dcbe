//! Whole connections to one or two shards: what clients do, in any order and at any time.
//!
//! The world around the cores does what the driver does, in its order: bytes, mail, time, stored
//! tickets and finished sends go in, and every effect is carried out. Each socket has a peer that
//! reads all that comes with an independent decoder and knows what may be said to it.
//!
//! Promises: no panic; what is sent is valid MQTT and within what the client asked for; a client that
//! broke no rule is not closed; batches, queues and stores stay within their limits; in the end every
//! client still gets messages, and when all have left nothing is left of them.
//!
//! Input: settings, then operations, as `arbitrary` reads them. With `RINGMQ_FUZZ_SHOW` in the
//! environment they are printed.

mod ending;
mod operation;
mod peer;
mod profile;
mod world;

use arbitrary::{Result, Unstructured};
use operation::Operation;
use profile::Profile;
use world::World;

/// Most operations of one input.
const OPERATIONS_MAX: usize = 250;

/// A history of clients.
pub fn connection(input: &[u8]) {
    // Too little input for settings is no history.
    let _ = history(&mut Unstructured::new(input));
}

fn history(input: &mut Unstructured<'_>) -> Result<()> {
    let profile: Profile = input.arbitrary()?;
    let shows = std::env::var_os("RINGMQ_FUZZ_SHOW").is_some();
    let mut world = World::new(&profile);
    if shows {
        eprintln!("{} shards, {:#?}", profile.shards(), profile.settings());
    }
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(operation) = input.arbitrary::<Operation>() else {
            break;
        };
        if shows {
            eprintln!("{operation:?}");
        }
        operation.apply(&mut world);
    }
    ending::end(&mut world, &profile);
    Ok(())
}
