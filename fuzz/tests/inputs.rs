//! Every target over every kept input and over random ones: what a stable toolchain can do.
//!
//! The random inputs are the kept ones with bytes changed, cut and joined. The generator's seed is
//! fixed unless `RINGMQ_FUZZ_SEED` gives another; `RINGMQ_FUZZ_INPUTS` is the number per target.
//! `RINGMQ_FUZZ_INPUT` names one input to run instead.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Random inputs per target.
const INPUTS: u64 = 4_000;
/// Longest random input.
const INPUT_BYTES_MAX: usize = 4_096;

fn kept(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["seeds", "regressions"] {
        let Ok(entries) = fs::read_dir(root.join(folder).join(target)) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }

    /// A new input out of the kept ones.
    fn input(&mut self, kept: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        let mut input = match kept.get(self.below(kept.len() + 1)) {
            Some((_, bytes)) => bytes.clone(),
            None => {
                let count = self.below(300);
                self.bytes(count)
            }
        };
        for _ in 0..1 + self.below(6) {
            let at = self.below(input.len() + 1);
            match self.below(5) {
                0 => {
                    let count = self.below(8);
                    input.splice(at..at, self.bytes(count));
                }
                1 => input.truncate(at),
                2 => {
                    if let Some((_, other)) = kept.get(self.below(kept.len())) {
                        let from = self.below(other.len() + 1);
                        input.splice(at..at, other[from..].iter().copied());
                    }
                }
                _ => {
                    let byte = self.below(256) as u8;
                    if let Some(place) = input.get_mut(at) {
                        *place = byte;
                    }
                }
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }
}

fn run(target: &str) {
    let (_, body) = ringmq_fuzz::TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a target of this name");
    if let Ok(path) = std::env::var("RINGMQ_FUZZ_INPUT") {
        return body(&fs::read(path).unwrap());
    }
    let kept = kept(target);
    assert!(!kept.is_empty(), "fuzz/seeds/{target} is empty");
    for (path, bytes) in &kept {
        let result = catch_unwind(AssertUnwindSafe(|| body(bytes)));
        assert!(result.is_ok(), "{target} fails for {}", path.display());
    }
    let seed = number("RINGMQ_FUZZ_SEED", 1);
    let mut random = Random(seed);
    for count in 0..number("RINGMQ_FUZZ_INPUTS", INPUTS) {
        let input = random.input(&kept);
        let result = catch_unwind(AssertUnwindSafe(|| body(&input)));
        if result.is_err() {
            let place = std::env::temp_dir().join(format!("ringmq-fuzz-{target}-{seed}-{count}"));
            fs::write(&place, &input).unwrap();
            panic!(
                "{target} fails for random input {count} of seed {seed}, written to {}; \
                 RINGMQ_FUZZ_SEED={seed} runs it again",
                place.display()
            );
        }
    }
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test] fn $name() { run(stringify!($name)); })+

        #[test]
        fn every_target_is_run() {
            let names: Vec<_> = ringmq_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}

targets! { frames packets_v3 packets_v5 topics matching connection passwords acl layers records salvage
mosquitto }
