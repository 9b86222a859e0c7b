//! The rules of the checks: one file per family, one id per rule.
//!
//! A rule's documentation gives an example and the reason. Ids are stable: policies, approvals
//! and the ledger name them.

use crate::analyse::Level;

pub(crate) mod configured;
pub(crate) mod scope;
pub(crate) mod secret;
pub(crate) mod sensitive;
pub(crate) mod test_weakening;
pub(crate) mod unusual_file;
pub(crate) mod unusual_text;

/// One rule of a check.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable id, kebab-case.
    pub id: &'static str,
    /// The check that it belongs to.
    pub check: &'static str,
    /// What it weighs unless the base's configuration raises it.
    pub level: Level,
    /// What it looks for and why, in one sentence.
    pub title: &'static str,
    /// What to do about it.
    pub next: &'static str,
}

/// Every rule, by check.
pub fn all() -> Vec<&'static Rule> {
    [
        scope::RULES,
        sensitive::RULES,
        configured::RULES,
        secret::RULES,
        test_weakening::RULES,
        unusual_text::RULES,
        unusual_file::RULES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_speak() {
        let rules = all();
        let mut ids: Vec<_> = rules.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), rules.len());
        for rule in rules {
            assert!(rule.title.len() > 20 && rule.next.len() > 20, "{}", rule.id);
            assert_ne!(rule.level, Level::Pass, "{} says nothing", rule.id);
        }
    }
}
