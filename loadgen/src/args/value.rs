//! Values on the command line: times, rates, addresses, objectives.

use super::options::Addresses;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

/// Source addresses that can be given.
const ADDRESSES_MAX: u32 = 65_536;

/// `10`, `10s`, `500ms` or `2m`; more than 0 unless written as `0s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "a time is a number with s, ms, us, m or h".to_owned())?;
    let seconds = match unit {
        "" if number == 0.0 => return Err("a time of 0 is written 0s".into()),
        "" | "s" => number,
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("`{unit}` is not a unit: use s, ms, us, m or h")),
    };
    if (0.0..=604_800.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not between 0 and a week".into())
    }
}

/// A positive number per second.
pub fn rate(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("not a number per second between 0 and a billion".into()),
    }
}

/// `5%`: a share between 0 and 1.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|n| n.trim().parse().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("not a share between 0% and 100%".into()),
    }
}

/// `A,B,C` or `A-B`.
pub fn addresses(text: &str) -> Result<Addresses, String> {
    let mut found = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            None => found.push(address::<IpAddr>(part)?),
            Some((first, last)) => {
                let first = u32::from(address::<Ipv4Addr>(first)?);
                let last = u32::from(address::<Ipv4Addr>(last)?);
                if last < first || last - first >= ADDRESSES_MAX {
                    return Err(format!("`{part}` is no range of up to {ADDRESSES_MAX}"));
                }
                found.extend((first..=last).map(|n| IpAddr::V4(Ipv4Addr::from(n))));
            }
        }
    }
    Ok(Addresses(found))
}

fn address<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{text}` is not an address"))
}

/// A percentile of the delivery latency and what it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// Between 0 and 1.
    pub quantile: f64,
    /// What it may be.
    pub limit: Duration,
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "an objective is a percentile and a time, such as p99=10ms".to_owned();
        let (name, limit) = text.split_once('=').ok_or_else(wrong)?;
        let quantile = match name {
            "p50" => 0.5,
            "p90" => 0.9,
            "p95" => 0.95,
            "p99" => 0.99,
            "p99.9" => 0.999,
            "p99.99" => 0.9999,
            "max" => 1.0,
            _ => return Err(wrong()),
        };
        Ok(Slo {
            quantile,
            limit: duration(limit)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, us) in [
            ("10", 10_000_000),
            ("1.5s", 1_500_000),
            ("20ms", 20_000),
            ("7us", 7),
            ("2m", 120_000_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "x", "-1s", "5 weeks", "0"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_lists_and_ranges() {
        let list = |text| addresses(text).map(|found| found.0.len());
        assert_eq!(list(""), Ok(0));
        assert_eq!(list("127.0.0.1,::1"), Ok(2));
        assert_eq!(list("127.0.0.9-127.0.1.8"), Ok(256));
        assert!(list("127.0.0.2-127.0.0.1").is_err() && list("x").is_err());
    }

    #[test]
    fn objectives_are_percentiles_and_times() {
        let slo: Slo = "p99.9=10ms".parse().unwrap();
        assert_eq!(
            (slo.quantile, slo.limit),
            (0.999, Duration::from_millis(10))
        );
        assert!("p99".parse::<Slo>().is_err() && "p1=1s".parse::<Slo>().is_err());
    }
}
