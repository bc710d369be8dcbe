//! Streams: what a publisher sends to one of its topics, in order. And who is owed them.

use super::topic;
use crate::stamp::STREAMS_MAX;
use std::collections::HashMap;
use std::sync::Arc;

/// Filter and topic comparisons a plan may need.
const COMPARISONS_MAX: u64 = 2_000_000_000;

/// All streams of a run, by number.
#[derive(Debug, Default)]
pub struct Streams {
    /// Topic of each.
    pub topics: Vec<Box<str>>,
    /// Publisher of each.
    pub publishers: Vec<u32>,
    /// Deliveries that each message of it is owed.
    pub owed: Vec<u32>,
    /// QoS it is published with.
    pub qos: Vec<u8>,
    /// Whether its publisher waits for deliveries.
    pub is_closed_loop: Vec<bool>,
}

impl Streams {
    /// Adds a stream and returns its number.
    pub fn add(
        &mut self,
        topic: String,
        publisher: u32,
        qos: u8,
        is_closed_loop: bool,
    ) -> Result<u32, String> {
        if self.topics.len() >= STREAMS_MAX {
            return Err(format!(
                "more than {STREAMS_MAX} topics over all publishers"
            ));
        }
        self.topics.push(topic.into_boxed_str());
        self.publishers.push(publisher);
        self.owed.push(0);
        self.qos.push(qos);
        self.is_closed_loop.push(is_closed_loop);
        Ok(self.topics.len() as u32 - 1)
    }

    /// Notes one more receiver for every message of `sources`.
    pub fn owe(&mut self, sources: &Sources) {
        for range in &sources.ranges {
            for owed in &mut self.owed[range.first as usize..][..range.count as usize] {
                *owed += 1;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
    offset: u32,
}

/// The streams that a subscriber is owed, numbered from 0 for its own use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    ranges: Box<[Range]>,
}

impl Sources {
    fn from_sorted(streams: &[u32]) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for (offset, &stream) in streams.iter().enumerate() {
            match ranges.last_mut() {
                Some(range) if range.first + range.count == stream => range.count += 1,
                _ => ranges.push(Range {
                    first: stream,
                    count: 1,
                    offset: offset as u32,
                }),
            }
        }
        Sources {
            ranges: ranges.into_boxed_slice(),
        }
    }

    /// How many streams.
    pub fn len(&self) -> usize {
        self.ranges
            .last()
            .map_or(0, |r| (r.offset + r.count) as usize)
    }

    /// The subscriber's own number of `stream`, if it is owed that.
    pub fn index_of(&self, stream: u32) -> Option<usize> {
        let at = self.ranges.partition_point(|r| r.first <= stream);
        let range = self.ranges.get(at.checked_sub(1)?)?;
        let within = stream - range.first;
        (within < range.count).then(|| (range.offset + within) as usize)
    }

    /// The streams in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|r| r.first..r.first + r.count)
    }
}

/// Finds the streams that filters match.
pub struct Resolver<'a> {
    streams: &'a Streams,
    by_topic: HashMap<&'a str, Vec<u32>>,
    by_wildcard: HashMap<Vec<String>, Arc<Sources>>,
    comparisons: u64,
}

impl<'a> Resolver<'a> {
    /// A resolver over all streams.
    pub fn new(streams: &'a Streams) -> Self {
        let mut by_topic: HashMap<&str, Vec<u32>> = HashMap::with_capacity(streams.topics.len());
        for (number, topic) in streams.topics.iter().enumerate() {
            by_topic.entry(topic).or_default().push(number as u32);
        }
        Resolver {
            streams,
            by_topic,
            by_wildcard: HashMap::new(),
            comparisons: 0,
        }
    }

    /// The streams that `filters` of one client match, each by one filter only.
    pub fn resolve(&mut self, filters: &[String]) -> Result<Arc<Sources>, String> {
        if let Some(sources) = self.by_wildcard.get(filters) {
            return Ok(sources.clone());
        }
        let mut found = Vec::new();
        for filter in filters {
            topic::check_filter(filter)?;
            if topic::has_wildcard(filter) {
                self.comparisons += self.streams.topics.len() as u64;
                if self.comparisons > COMPARISONS_MAX {
                    return Err("too many different wildcard filters times topics".into());
                }
                let topics = self.streams.topics.iter().enumerate();
                let matching = topics.filter(|(_, topic)| topic::matches(filter, topic));
                found.extend(matching.map(|(number, _)| number as u32));
            } else if let Some(numbers) = self.by_topic.get(filter.as_str()) {
                found.extend_from_slice(numbers);
            }
        }
        found.sort_unstable();
        if found.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!(
                "the filters {filters:?} overlap: brokers may deliver once or twice there"
            ));
        }
        let sources = Arc::new(Sources::from_sorted(&found));
        if found.len() > 1 {
            self.by_wildcard.insert(filters.to_vec(), sources.clone());
        }
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(topics: &[&str]) -> Streams {
        let mut streams = Streams::default();
        for (publisher, topic) in topics.iter().enumerate() {
            streams
                .add((*topic).into(), publisher as u32, 0, true)
                .unwrap();
        }
        streams
    }

    #[test]
    fn sources_number_their_streams_without_gaps() {
        let mut streams = streams(&["a/1", "b/1", "a/2", "a/3", "b/2"]);
        let sources = Resolver::new(&streams).resolve(&["a/+".into()]).unwrap();
        assert_eq!(sources.len(), 3);
        assert_eq!(sources.iter().collect::<Vec<_>>(), [0, 2, 3]);
        let indexes: Vec<_> = (0..6).map(|stream| sources.index_of(stream)).collect();
        assert_eq!(indexes, [Some(0), None, Some(1), Some(2), None, None]);
        streams.owe(&sources);
        streams.owe(&sources);
        assert_eq!(streams.owed, [2, 0, 2, 2, 0]);
    }

    #[test]
    fn overlapping_filters_are_refused() {
        let streams = streams(&["a/1", "a/2"]);
        let mut resolver = Resolver::new(&streams);
        assert!(resolver.resolve(&["a/+".into(), "a/1".into()]).is_err());
        assert!(resolver.resolve(&["a/1".into(), "a/2".into()]).is_ok());
        assert_eq!(resolver.resolve(&["c".into()]).unwrap().len(), 0);
    }
}
