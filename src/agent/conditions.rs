//! The list of named conditions: what an operator should know, since when.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{Condition, Severity};

/// All conditions that hold, by subject and code.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    held: BTreeMap<(String, String), Condition>,
    told: Vec<Condition>,
}

impl Conditions {
    /// A condition holds. One that held already keeps its beginning.
    pub(super) fn set(
        &mut self,
        now: Timestamp,
        subject: &str,
        code: &str,
        severity: Severity,
        message: impl Into<String>,
    ) {
        let key = (subject.to_owned(), code.to_owned());
        let since = self.since(&key).unwrap_or(now);
        let (subject, code) = key.clone();
        self.held.insert(key, Condition { code, severity, subject, message: message.into(), since });
    }

    /// Whether it holds.
    pub(super) fn holds(&self, subject: &str, code: &str) -> bool {
        self.held.contains_key(&(subject.to_owned(), code.to_owned()))
    }

    /// It holds no longer.
    pub(super) fn clear(&mut self, subject: &str, code: &str) {
        self.held.remove(&(subject.to_owned(), code.to_owned()));
    }

    /// Nothing of this subject holds any longer.
    pub(super) fn clear_subject(&mut self, subject: &str) {
        self.held.retain(|(held, _), _| held != subject);
    }

    /// Nothing of this kind holds any longer, whatever its subject.
    pub(super) fn clear_code(&mut self, code: &str) {
        self.held.retain(|(_, held), _| held != code);
    }

    /// All that hold, sorted by subject and code.
    pub(super) fn all(&self) -> Vec<Condition> {
        self.held.values().cloned().collect()
    }

    /// All that hold, if that is not what was given last time.
    pub(super) fn changed(&mut self) -> Option<Vec<Condition>> {
        let all = self.all();
        if all == self.told {
            return None;
        }
        self.told.clone_from(&all);
        Some(all)
    }

    fn since(&self, key: &(String, String)) -> Option<Timestamp> {
        let told = || self.told.iter().find(|told| told.subject == key.0 && told.code == key.1);
        self.held.get(key).or_else(told).map(|condition| condition.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_set_again_keeps_its_beginning_and_is_told_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Conditions::default();
        conditions.set(at(1), "salto", "line_down", Severity::Error, "unplugged");
        assert_eq!(conditions.changed().unwrap()[0].since, at(1));
        conditions.clear_subject("salto");
        conditions.set(at(9), "salto", "line_down", Severity::Error, "unplugged");
        assert_eq!(conditions.changed(), None);
        assert!(conditions.holds("salto", "line_down"));
        conditions.clear("salto", "line_down");
        assert!(!conditions.holds("salto", "line_down"));
        assert_eq!(conditions.changed(), Some(Vec::new()));
        conditions.set(at(12), "salto", "line_down", Severity::Error, "unplugged");
        assert_eq!(conditions.changed().unwrap()[0].since, at(12));
    }
}
