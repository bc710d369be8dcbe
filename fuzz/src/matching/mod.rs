//! The trie and the retained store against models that a child can check: lists and maps.
//!
//! Input: a list of operations, as `arbitrary` reads it. Topics and filters are made of few levels, so
//! that they meet.

mod retained;
mod trie;

use crate::topics::model_match;
use arbitrary::{Arbitrary, Unstructured};

/// Most operations of one input.
const OPERATIONS_MAX: usize = 200;

const LEVELS: [&str; 8] = ["a", "b", "", "ab", "$s", "nine-bytes", "+", "#"];

/// Levels by number; six of them may be in a topic name.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Path {
    levels: [u8; 4],
    depth: u8,
}

impl Path {
    fn text(self, levels: usize, is_filter: bool) -> String {
        let depth = 1 + usize::from(self.depth % 4);
        let mut texts = Vec::new();
        for level in self.levels.iter().take(depth) {
            let level = LEVELS[usize::from(*level) % levels];
            texts.push(level);
            if is_filter && level == "#" {
                break;
            }
        }
        let text = texts.join("/");
        // The only text of these levels that is no topic.
        if text.is_empty() {
            "a".to_owned()
        } else {
            text
        }
    }

    fn topic(self) -> String {
        self.text(6, false)
    }

    fn filter(self) -> String {
        self.text(8, true)
    }
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Trie(trie::Operation),
    Retained(retained::Operation),
}

/// A history of both.
pub fn matching(input: &[u8]) {
    let mut trie = trie::Checked::default();
    let mut retained = retained::Checked::default();
    let mut input = Unstructured::new(input);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        match input.arbitrary() {
            Ok(Operation::Trie(operation)) => trie.apply(&operation),
            Ok(Operation::Retained(operation)) => retained.apply(&operation),
            Err(_) => break,
        }
    }
    trie.finish();
    retained.finish();
}

fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    model_match(&filter, &topic)
}
