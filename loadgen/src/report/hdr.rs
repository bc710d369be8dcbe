//! Files that HdrHistogram's own tools read: percentile distributions and interval logs.

use crate::measure::Measure;
use crate::outcome::{Outcome, Second};
use crate::verdict::Verdict;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Reporting steps per halving of the distance to 100 %.
const STEPS: u32 = 5;
/// Nanoseconds of the unit in percentile files.
const UNIT_NS: f64 = 1e3;

/// Writes the delivery latency's percentiles in us, and what the run was worth.
///
/// # Errors
/// A message that names the file.
pub fn write_percentiles(path: &Path, outcome: &Outcome, verdict: Verdict) -> Result<(), String> {
    let Some(histogram) = outcome.meters.latency(Measure::Deliver) else {
        return Err(format!("{}: there were no deliveries", path.display()));
    };
    let named = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let mut out = BufWriter::new(File::create(path).map_err(named)?);
    percentiles(histogram, &mut out).map_err(named)?;
    writeln!(out, "#[Verdict = {}]", verdict.words()).map_err(named)?;
    out.flush().map_err(named)
}

fn percentiles(histogram: &Histogram<u64>, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for step in histogram.iter_quantiles(STEPS) {
        let value = step.value_iterated_to() as f64 / UNIT_NS;
        let quantile = step.quantile_iterated_to();
        let count = histogram.count_between(0, step.value_iterated_to());
        write!(out, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        histogram.mean() / UNIT_NS,
        histogram.stdev() / UNIT_NS
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        histogram.max() as f64 / UNIT_NS,
        histogram.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.buckets(),
        histogram.distinct_values() / usize::from(histogram.buckets()).max(1)
    )
}

/// A histogram per second, written as the run goes on.
pub struct IntervalLog {
    file: BufWriter<File>,
    serializer: V2DeflateSerializer,
    first: Option<u64>,
    failure: Option<String>,
    is_begun: bool,
}

impl IntervalLog {
    /// Opens the file.
    ///
    /// # Errors
    /// A message that names the file.
    pub fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(IntervalLog {
            file: BufWriter::new(file),
            serializer: V2DeflateSerializer::new(),
            first: None,
            failure: None,
            is_begun: false,
        })
    }

    /// Writes the deliveries of one second.
    pub fn write(&mut self, second: &Second) {
        let Some(histogram) = second.meters.latency(Measure::Deliver) else {
            return;
        };
        let first = *self.first.get_or_insert(second.second);
        let start = Duration::from_secs(second.second - first);
        if let Err(error) = self.append(histogram, start) {
            self.failure.get_or_insert(error);
        }
    }

    fn append(&mut self, histogram: &Histogram<u64>, start: Duration) -> Result<(), String> {
        let mut lines = Vec::new();
        let mut builder = IntervalLogWriterBuilder::new();
        if !self.is_begun {
            builder
                .add_comment("loadgen: delivery latency in ns")
                .with_start_time(SystemTime::now())
                .with_max_value_divisor(1e6);
        }
        let mut log: IntervalLogWriter<'_, '_, _, _> = builder
            .begin_log_with(&mut lines, &mut self.serializer)
            .map_err(|error| error.to_string())?;
        log.write_histogram(histogram, start, Duration::from_secs(1), None)
            .map_err(|error| format!("{error:?}"))?;
        let text = String::from_utf8_lossy(&lines);
        let kept = text
            .lines()
            .filter(|line| !self.is_begun || !line.starts_with('#'));
        for line in kept {
            writeln!(self.file, "{line}").map_err(|error| error.to_string())?;
        }
        self.is_begun = true;
        Ok(())
    }

    /// Ends the file with what the run was worth.
    ///
    /// # Errors
    /// What went wrong first.
    pub fn finish(mut self, verdict: Verdict) -> Result<(), String> {
        let said = writeln!(self.file, "#[verdict: {}]", verdict.words());
        let flushed = said.and_then(|()| self.file.flush());
        let flushed = flushed.map_err(|error| error.to_string());
        match self.failure.take() {
            Some(failure) => Err(format!("the interval log is not complete: {failure}")),
            None => flushed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Meters;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn second(number: u64, ns: u64) -> Second {
        let mut meters = Meters::default();
        meters.record(Measure::Deliver, ns);
        Second {
            second: number,
            meters,
        }
    }

    #[test]
    fn an_interval_log_is_read_back_by_its_library() {
        let path = std::env::temp_dir().join(format!("loadgen-{}.hlog", std::process::id()));
        let mut log = IntervalLog::create(&path).unwrap();
        log.write(&second(7, 1_000_000));
        log.write(&second(9, 2_000_000));
        log.finish(Verdict::Clean).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut starts = Vec::new();
        let mut maxima = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                starts.push(interval.start_timestamp().as_secs());
                let encoded = interval.encoded_histogram();
                let decoded = base64_decode(encoded);
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &decoded[..]).unwrap();
                maxima.push(histogram.max() / 100_000);
            }
        }
        assert_eq!(starts, [0, 2]);
        assert_eq!(maxima, [10, 20]);
    }

    fn base64_decode(text: &str) -> Vec<u8> {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
        for byte in text.bytes().filter(|b| *b != b'=') {
            let value = alphabet.iter().position(|a| *a == byte).unwrap() as u32;
            bits = bits << 6 | value;
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        out
    }

    #[test]
    fn percentiles_end_with_everything() {
        let mut meters = Meters::default();
        for us in 1..=1000 {
            meters.record(Measure::Deliver, us * 1000);
        }
        let mut out = Vec::new();
        percentiles(meters.latency(Measure::Deliver).unwrap(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("1.000000000000       1000\n"), "{text}");
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
