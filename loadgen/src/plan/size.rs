//! Payload sizes: one, a range, or a weighted list.

use crate::stamp::STAMP_BYTES;
use serde::Deserialize;
use std::str::FromStr;

/// Largest payload.
const PAYLOAD_BYTES_MAX: u32 = 268_000_000;
/// Picks are made from a table of so many entries.
const TABLE: usize = 1024;

/// Sizes of payloads and how often each is taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Sizes {
    table: Box<[u32]>,
}

impl Sizes {
    /// The size of message number `index`: the same in every run.
    pub fn pick(&self, index: u64) -> usize {
        if let [only] = *self.table {
            return only as usize;
        }
        let mixed = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.table[mixed as usize % self.table.len()] as usize
    }

    /// The largest size.
    pub fn bytes_max(&self) -> usize {
        self.table
            .iter()
            .max()
            .map_or(STAMP_BYTES, |size| *size as usize)
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// `64`, `16-1024` (uniform), or `16:50,256:30,4096:20` (weights).
    fn from_str(text: &str) -> Result<Self, String> {
        let table = if let Some((low, high)) = text.split_once('-') {
            let (low, high) = (size(low)?, size(high)?);
            if low > high {
                return Err(format!("{low} is more than {high}"));
            }
            let step = |at: usize| u64::from(high - low) * at as u64 / (TABLE as u64 - 1);
            (0..TABLE).map(|at| low + step(at) as u32).collect()
        } else if text.contains(':') {
            weighted(text)?
        } else {
            vec![size(text)?]
        };
        Ok(Sizes {
            table: table.into_boxed_slice(),
        })
    }
}

impl TryFrom<String> for Sizes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

fn size(text: &str) -> Result<u32, String> {
    let size: u32 = text
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a number of bytes"))?;
    if (STAMP_BYTES as u32..=PAYLOAD_BYTES_MAX).contains(&size) {
        Ok(size)
    } else {
        Err(format!(
            "a payload has {STAMP_BYTES} (its stamp) to {PAYLOAD_BYTES_MAX} bytes, not {size}"
        ))
    }
}

fn weighted(text: &str) -> Result<Vec<u32>, String> {
    let mut parts = Vec::new();
    for part in text.split(',') {
        let (bytes, weight) = part
            .split_once(':')
            .ok_or_else(|| format!("`{part}` is not SIZE:WEIGHT"))?;
        let weight: u32 = weight
            .trim()
            .parse()
            .map_err(|_| format!("`{weight}` is not a weight"))?;
        parts.push((size(bytes)?, u64::from(weight)));
    }
    let total: u64 = parts.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return Err("all weights are 0".into());
    }
    let mut table = Vec::new();
    for (bytes, weight) in parts {
        let entries = (weight * TABLE as u64).div_ceil(total) as usize;
        table.extend(std::iter::repeat_n(bytes, entries));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_their_distribution() {
        let sizes: Sizes = "16:3,1000:1".parse().unwrap();
        let small = (0..10_000).filter(|k| sizes.pick(*k) == 16).count();
        assert!((7_200..7_800).contains(&small), "{small}");
        assert_eq!(sizes.bytes_max(), 1000);
        let sizes: Sizes = "100-200".parse().unwrap();
        assert!((0..1000).all(|k| (100..=200).contains(&sizes.pick(k))));
        let mean = (0..10_000).map(|k| sizes.pick(k)).sum::<usize>() / 10_000;
        assert!((145..=155).contains(&mean), "{mean}");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for text in ["15", "20-10", "16:x", "16:0", "", "64:1,", "400000000"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
