//! The next certificate: when it is asked for, and how.
//!
//! It is time by the cloud's clock alone, or by its word that the certificate has ended: a host whose clock is far ahead
//! would ask for ever. What is asked with stays in a draft until the new pairing is durable, so that whatever is cut off
//! is asked again with the same keys.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use tokio::{task::spawn_blocking, time::Instant};

use super::pairing::{Draft, Own, Pairing, Taken};
use crate::{
    config::AgentConfig,
    link::{
        Route, Settings,
        enrol::{EnrolError, Gate},
    },
    protocol::enrol::RenewRequest,
    seams::Random,
};

/// It is looked again at least this often whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// No pause after a failure is longer, and none between two renewals need be.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// The first pause after a failure is at most this.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// And no pause is shorter.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// From when to when a certificate counts, by the cloud's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Life {
    fn length(self) -> SignedDuration {
        self.expires_at.duration_since(self.issued_at).max(SignedDuration::ZERO)
    }

    /// A part of it, for pauses.
    fn part(self, parts: u32) -> Duration {
        self.length().unsigned_abs() / parts
    }

    /// When the next certificate is due: after a third of it and, with `jitter`, up to a twelfth more.
    fn due(self, jitter: u64) -> Timestamp {
        let spread = (u128::from(jitter) * self.part(12).as_nanos()) >> u64::BITS;
        let spread = SignedDuration::from_nanos(i64::try_from(spread).unwrap_or(i64::MAX));
        let due = self.issued_at.saturating_add(self.length() / 3).unwrap_or(Timestamp::MAX);
        due.saturating_add(spread).unwrap_or(Timestamp::MAX)
    }

    fn is_half_over(self, now: Timestamp) -> bool {
        now.duration_since(self.issued_at) > self.length() / 2
    }
}

/// When the next certificate is asked for.
#[derive(Debug)]
pub(super) struct Renewal {
    random: Random,
    jitter: u64,
    /// The cloud says that the present one has ended.
    is_over: bool,
    /// A renewal was cut off, by the end of this process or of the one before.
    is_cut_off: bool,
    is_under_way: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// Why the last attempt failed.
    why: Option<String>,
}

impl Renewal {
    pub(super) fn new(random: Random, is_cut_off: bool) -> Self {
        let jitter = u64::from_be_bytes(random.bytes());
        Self {
            random,
            jitter,
            is_over: false,
            is_cut_off,
            is_under_way: false,
            failures: 0,
            not_before: None,
            why: None,
        }
    }

    /// The cloud refused the present certificate because it has ended.
    pub(super) fn is_over(&mut self) {
        self.is_over = true;
    }

    /// The cloud welcomed us with the present certificate.
    pub(super) fn is_welcome(&mut self) {
        self.is_over = false;
    }

    /// When it is to be asked, or looked again; nothing where only the cloud's word can tell. `cloud` is its time, where
    /// it has said it.
    pub(super) fn at(&self, life: Life, cloud: Option<Timestamp>, now: Instant) -> Option<Instant> {
        if self.is_under_way {
            return None;
        }
        let due = if self.is_over || self.is_cut_off {
            now
        } else {
            let left = life.due(self.jitter).duration_since(cloud?).max(SignedDuration::ZERO);
            now + left.unsigned_abs().min(LOOK_EVERY)
        };
        Some(due.max(self.not_before.unwrap_or(now)))
    }

    /// Whether it is to be asked now; then it is under way.
    pub(super) fn begin(&mut self, life: Life, cloud: Option<Timestamp>, now: Instant) -> bool {
        let is_due =
            self.is_over || self.is_cut_off || cloud.is_some_and(|cloud| cloud >= life.due(self.jitter));
        let is_allowed = self.not_before.is_none_or(|at| at <= now);
        let begins = is_due && is_allowed && !self.is_under_way;
        self.is_under_way |= begins;
        begins
    }

    /// There is a new certificate.
    pub(super) fn succeeded(&mut self, life: Life, now: Instant) {
        let random = self.random.clone();
        *self = Self::new(random, false);
        // Whatever the clocks say, the next one is not asked for at once.
        self.not_before = Some(now + life.part(10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }

    /// Nothing came of it; it is tried again.
    pub(super) fn failed(&mut self, failed: &Failed, life: Life, now: Instant) {
        let longest = life.part(20).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let first = life.part(100).clamp(SHORTEST_PAUSE, FIRST_PAUSE);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let bound = first.saturating_mul(factor).min(longest);
        let spread = u64::try_from(bound.as_millis() / 2).unwrap_or(u64::MAX);
        let pause = bound / 2 + Duration::from_millis(self.random.below(spread.saturating_add(1)));
        self.not_before = Some(now + pause.max(failed.after.unwrap_or_default()));
        self.failures = self.failures.saturating_add(1);
        self.is_under_way = false;
        // It was due, whoever said so.
        self.is_cut_off = true;
        self.why = Some(failed.why.clone());
    }

    /// It came to nothing because the site was paired anew: what that brought counts.
    pub(super) fn set_aside(&mut self, now: Instant) {
        self.is_under_way = false;
        self.not_before = Some(now + FIRST_PAUSE);
    }

    /// What a person should know, if it has become serious: whether the certificate has ended, and in words.
    pub(super) fn trouble(&self, life: Life, cloud: Option<Timestamp>) -> Option<(bool, String)> {
        let why = self.why.as_ref()?;
        let is_over = self.is_over || cloud.is_some_and(|now| now >= life.expires_at);
        let is_serious = is_over || cloud.is_some_and(|now| life.is_half_over(now));
        let until = life.expires_at;
        let when = if is_over { "ended" } else { "ends" };
        is_serious.then(|| {
            (
                is_over,
                format!(
                    "the certificate {when} at {until} and could not be renewed yet: {why}; it is tried again"
                ),
            )
        })
    }
}

/// Nothing came of a renewal.
#[derive(Debug)]
pub(super) struct Failed {
    /// In words.
    pub(super) why: String,
    /// How long the cloud wants to be left alone.
    pub(super) after: Option<Duration>,
    /// The site was paired anew meanwhile, and the file says how.
    pub(super) is_replaced: bool,
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self { why: format!("{error:#}"), after: None, is_replaced: false }
    }
}

impl From<EnrolError> for Failed {
    fn from(error: EnrolError) -> Self {
        let after = error.after();
        let hint = if error.is_final() {
            "; if that stays so, pair the site again with `latchd pair --replace`"
        } else {
            ""
        };
        let error = anyhow::Error::from(error);
        Self { why: format!("{error:#}{hint}"), after, is_replaced: false }
    }
}

/// Asks for the next certificate, and keeps what comes of it.
pub(super) async fn renew(own: Own, config: AgentConfig) -> Result<(Pairing, Settings), Failed> {
    let url = config.cloud.url.clone().unwrap_or_else(|| own.pairing.url.clone());
    let route = Route::from_config(&url, &config.cloud, |name| std::env::var(name).ok());
    let gate = Gate::at(&url, Arc::clone(&own.net), own.clock.clone()).map_err(anyhow::Error::from)?;
    let gate = gate.by(route.map_err(anyhow::Error::from)?);
    let (own, config, draft) = blocking(move || {
        let (path, purpose) = (draft_path(&config), purpose(&own.pairing, &own.seal)?);
        let draft = match Draft::again(&path, &purpose, &own.seal) {
            Some(draft) => draft,
            None => {
                let draft = Draft::make(&own.random)?;
                draft.keep(&path, &purpose, &own.seal)?;
                draft
            }
        };
        Ok((own, config, draft))
    })
    .await?;
    let trust = own.pairing.trust(&config).map_err(anyhow::Error::from)?;
    let old = own.pairing.secrets(&own.seal)?.signing_key();
    let request = RenewRequest {
        bridge_id: own.pairing.bridge_id,
        proof: draft.keys.proof(&draft.secrets.signing_key()),
        old_key_id: old.public().id(),
        old_proof: draft.keys.renewal_proof(&old),
        keys: draft.keys.clone(),
    };
    let answer = match gate.renew(trust, &request).await {
        Ok(answer) => answer,
        Err(error) => {
            if error.is_final() {
                // These keys will not be certified any more; the next attempt makes others.
                let path = draft_path(&config);
                let removed = spawn_blocking(move || Draft::remove(&path));
                removed.await.map_err(anyhow::Error::from)?;
            }
            return Err(error.into());
        }
    };
    let admission = answer.open(&own.pairing.cloud_keys, &draft.keys).map_err(anyhow::Error::from)?;
    let kept = blocking(move || {
        ensure!(admission.bridge_id == own.pairing.bridge_id, "the answer is about another bridge");
        ensure!(admission.issued_at < admission.expires_at, "the certificate ends before it begins");
        // The authority that a person named stays where the cloud has none of its own.
        let authority = admission.authority.clone().or_else(|| own.pairing.authority.clone());
        let taken = Taken { authority, ..Taken::new(own.pairing.url.clone(), admission) };
        let pairing = Pairing::new(taken, &draft.secrets, &own.seal);
        let settings = pairing.settings(&config, &own.seal)?;
        if !pairing.store_after(&own.pairing, &Pairing::path(&config))? {
            return Ok(None);
        }
        Draft::remove(&draft_path(&config));
        Ok(Some((pairing, settings)))
    });
    kept.await?.ok_or_else(|| Failed {
        why: "the site was paired anew meanwhile".into(),
        after: None,
        is_replaced: true,
    })
}

/// Whether a renewal of this pairing was cut off.
pub(super) fn is_cut_off(config: &AgentConfig, pairing: &Pairing, seal: &crate::seal::SealKey) -> bool {
    let purpose = purpose(pairing, seal);
    purpose.is_ok_and(|purpose| Draft::again(&draft_path(config), &purpose, seal).is_some())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    spawn_blocking(work).await?
}

fn draft_path(config: &AgentConfig) -> PathBuf {
    config.storage.folder.join(Draft::RENEWAL)
}

/// Keys are asked for in the name of one key: another pairing has another.
fn purpose(pairing: &Pairing, seal: &crate::seal::SealKey) -> anyhow::Result<String> {
    let key = pairing.secrets(seal)?.signing_key().public().id();
    Ok(format!("renew {} {key}", pairing.bridge_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn issued() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn life() -> Life {
        Life { issued_at: issued(), expires_at: issued() + DAY * 90 }
    }

    fn renewal() -> Renewal {
        Renewal::new(Random::seeded(1), false)
    }

    fn failed() -> Failed {
        Failed { why: "no way there".into(), after: None, is_replaced: false }
    }

    #[test]
    fn the_next_certificate_is_due_when_a_third_of_its_life_is_over_or_a_little_later() {
        for (jitter, days) in [(0, 30.0), (u64::MAX, 37.5)] {
            let due = life().due(jitter).duration_since(issued()).as_secs_f64() / 86_400.0;
            assert!((due - days).abs() < 0.001, "{due}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_clouds_time_nothing_is_asked_whatever_the_host_thinks() {
        let (mut renewal, now) = (renewal(), Instant::now());
        assert_eq!(renewal.at(life(), None, now), None);
        assert!(!renewal.begin(life(), None, now));
        assert!(!renewal.begin(life(), Some(issued() + DAY * 29), now));
        assert!(renewal.begin(life(), Some(issued() + DAY * 38), now));
        assert!(!renewal.begin(life(), Some(issued() + DAY * 38), now), "it is under way");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clouds_word_that_it_has_ended_is_enough_and_asks_no_second_time_at_once() {
        let (mut renewal, now) = (renewal(), Instant::now());
        renewal.is_over();
        assert_eq!(renewal.at(life(), None, now), Some(now));
        assert!(renewal.begin(life(), None, now));
        renewal.succeeded(life(), now);
        renewal.is_over();
        assert!(!renewal.begin(life(), None, now));
        let again = renewal.at(life(), None, now).unwrap();
        assert_eq!(again, now + LONGEST_PAUSE);
        assert!(renewal.begin(life(), None, again));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_ever_later_and_not_before_the_cloud_wants() {
        let (mut renewal, now) = (renewal(), Instant::now());
        renewal.is_over();
        let mut waits = Vec::new();
        for _ in 0..12 {
            renewal.not_before = None;
            assert!(renewal.begin(life(), None, now));
            renewal.failed(&failed(), life(), now);
            waits.push(renewal.at(life(), None, now).unwrap() - now);
        }
        assert!(waits[0] >= FIRST_PAUSE / 2 && waits[0] <= FIRST_PAUSE, "{waits:?}");
        assert!(waits[11] >= LONGEST_PAUSE / 2 && waits[11] <= LONGEST_PAUSE, "{waits:?}");
        let asked = Failed { after: Some(Duration::from_secs(9000)), ..failed() };
        renewal.failed(&asked, life(), now);
        assert_eq!(renewal.at(life(), None, now).unwrap() - now, Duration::from_secs(9000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_when_less_than_half_of_its_life_is_left() {
        let (mut renewal, now) = (renewal(), Instant::now());
        let at = |days: i32| Some(issued() + DAY * days);
        assert_eq!(renewal.trouble(life(), at(60)), None);
        renewal.failed(&failed(), life(), now);
        assert_eq!(renewal.trouble(life(), at(44)), None);
        assert_eq!(renewal.trouble(life(), None), None);
        let (is_over, message) = renewal.trouble(life(), at(46)).unwrap();
        assert!(!is_over && message.contains("ends at 2027-02-20T12:00:00Z"), "{message}");
        assert!(message.contains("no way there"), "{message}");
        assert!(renewal.trouble(life(), at(91)).unwrap().0);
        renewal.is_over();
        assert!(renewal.trouble(life(), None).unwrap().0);
        renewal.succeeded(life(), now);
        assert_eq!(renewal.trouble(life(), at(91)), None);
    }
}
