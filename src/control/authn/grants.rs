//! The object with access rules that a token or the answer of a hook carries:
//! `{"publish": [filters], "subscribe": [filters], "all": [filters], "deny": [filters]}`.
//!
//! Every list may be absent. Another key is a mistake: a misspelt `deny` must not allow.

use crate::engine::access::acl::{Acl, RuleAccess};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Grants {
    publish: Vec<String>,
    subscribe: Vec<String>,
    all: Vec<String>,
    deny: Vec<String>,
}

/// Compiles the object; `None` if it is malformed.
///
/// Its size is bounded by what carried it: a CONNECT packet or a bounded answer.
pub fn compile(object: &Value) -> Option<Arc<Acl>> {
    if !object.is_object() {
        return None;
    }
    let grants = Grants::deserialize(object).ok()?;
    let lists = [
        (RuleAccess::Write, &grants.publish),
        (RuleAccess::Read, &grants.subscribe),
        (RuleAccess::ReadWrite, &grants.all),
        (RuleAccess::Deny, &grants.deny),
    ];
    let rules = lists
        .iter()
        .flat_map(|(access, filters)| filters.iter().map(|filter| (*access, filter.as_str())));
    Acl::from_rules(rules).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_may_be_absent() {
        assert!(compile(&json!({})).is_some());
        let all = json!({"publish": ["a/#"], "subscribe": ["b/+"], "all": [], "deny": ["a/x"]});
        assert!(compile(&all).is_some());
    }

    #[test]
    fn an_object_of_another_form_is_refused() {
        for malformed in [
            json!(null),
            json!("a/#"),
            json!([]),
            json!([["a"], ["b"], ["c"], ["d"]]),
            json!({"publish": "a/#"}),
            json!({"publish": [7]}),
            json!({"publish": null}),
            json!({"Deny": ["a/#"]}),
        ] {
            assert!(compile(&malformed).is_none(), "{malformed}");
        }
    }
}
