//! Numbers, and whether they are good enough.
//!
//! The machine is shared and its disk drifts, so only what was measured alternately in one run is compared: the ratio
//! of two medians per round, and the median of those over the rounds. A goal that is missed is tried again, three times
//! in all, and the best attempt counts: noise only ever makes things slower.

use std::time::Duration;

use serde::Serialize;

/// What was measured of one thing.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn extend(&mut self, samples: impl IntoIterator<Item = Duration>) {
        self.0.extend(samples);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn durations(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }

    /// In microseconds; `percent` of the samples are at most this.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
    }

    pub fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub fn spread(&self) -> Spread {
        Spread { p50_us: self.p50(), p99_us: self.percentile(99), samples: self.len() }
    }
}

/// A median and a tail, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub p50_us: f64,
    pub p99_us: f64,
    pub samples: usize,
}

/// Floor and candidate of one run, by round.
#[derive(Debug, Default)]
pub struct Paired {
    rounds: Vec<(Samples, Samples)>,
}

impl Paired {
    pub fn round(&mut self, floor: Samples, candidate: Samples) {
        self.rounds.push((floor, candidate));
    }

    /// Everything that was measured of the candidate.
    pub fn candidate(&self) -> Samples {
        let mut all = Samples::default();
        self.rounds.iter().for_each(|round| all.extend(round.1.durations()));
        all
    }

    /// The check that the candidate takes at most so many milliseconds more than the floor.
    pub fn above(&self, row: &'static str, what: impl Into<String>, goal: Goal) -> Check {
        let more: Vec<f64> =
            self.rounds.iter().map(|(floor, candidate)| (candidate.p50() - floor.p50()) / 1000.0).collect();
        let both = self.check(row, what, goal);
        Check { value: median(&more), unit: "ms", range: range(&more), ..both }
    }

    /// The check that the candidate takes at most `goal` times as long as the floor.
    pub fn check(&self, row: &'static str, what: impl Into<String>, goal: Goal) -> Check {
        let ratios: Vec<f64> =
            self.rounds.iter().map(|(floor, candidate)| candidate.p50() / floor.p50()).collect();
        let all = |pick: fn(&(Samples, Samples)) -> &Samples| {
            let mut all = Samples::default();
            for round in &self.rounds {
                all.extend(pick(round).0.iter().copied());
            }
            all.spread()
        };
        Check {
            floor: Some(all(|round| &round.0)),
            candidate: Some(all(|round| &round.1)),
            range: range(&ratios),
            ..Check::new(row, what, median(&ratios), "x", goal)
        }
    }
}

pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

pub fn range(numbers: &[f64]) -> Option<(f64, f64)> {
    Some((numbers.iter().copied().reduce(f64::min)?, numbers.iter().copied().reduce(f64::max)?))
}

/// What a number has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
    /// Told, and judged by nobody.
    Told,
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::Exactly(exact) => (value - exact).abs() < 1e-9,
            Self::Told => true,
        }
    }

    /// Whether the first of two values is the better one.
    fn prefers(self, first: f64, second: f64) -> bool {
        match self {
            Self::AtMost(_) => first < second,
            Self::AtLeast(_) => first > second,
            Self::Exactly(exact) => (first - exact).abs() < (second - exact).abs(),
            Self::Told => false,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::Exactly(exact) => write!(f, "= {exact}"),
            Self::Told => f.write_str("-"),
        }
    }
}

/// One number with its goal.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The row of the table of goals that it belongs to.
    pub row: &'static str,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Goal,
    /// Over the rounds.
    pub range: Option<(f64, f64)>,
    pub floor: Option<Spread>,
    pub candidate: Option<Spread>,
}

impl Check {
    pub fn new(
        row: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
    ) -> Self {
        Self { row, what: what.into(), value, unit, goal, range: None, floor: None, candidate: None }
    }

    /// A number nobody judges.
    pub fn told(row: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self::new(row, what, value, unit, Goal::Told)
    }

    pub fn of(mut self, candidate: &Samples) -> Self {
        self.candidate = Some(candidate.spread());
        self
    }

    pub fn above(mut self, floor: &Samples) -> Self {
        self.floor = Some(floor.spread());
        self
    }

    pub fn is_met(&self) -> bool {
        self.goal.is_met(self.value)
    }

    fn print(&self) {
        let verdict = match (self.goal, self.is_met()) {
            (Goal::Told, _) => "     ",
            (_, true) => "ok   ",
            (_, false) => "MISS ",
        };
        let range = self.range.map(|(low, high)| format!(" [{low:.2}-{high:.2}]")).unwrap_or_default();
        let spread = |name: &str, spread: Option<Spread>| {
            spread.map(|s| format!("  {name} {:.0} / {:.0} us", s.p50_us, s.p99_us)).unwrap_or_default()
        };
        println!(
            "{verdict}{:>3}  {:<58} {:>9.2} {}{range}  goal {}{}{}",
            self.row,
            self.what,
            self.value,
            self.unit,
            self.goal,
            spread("floor", self.floor),
            spread("latchd", self.candidate)
        );
    }
}

/// The end of a scenario.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub scenario: String,
    pub attempts: usize,
    pub checks: Vec<Check>,
    pub met: bool,
}

/// Runs a scenario until its goals are met, three times at most, and tells the best of each number.
pub fn attempts(
    scenario: &str,
    mut run: impl FnMut() -> anyhow::Result<Vec<Check>>,
) -> anyhow::Result<Verdict> {
    let mut best: Vec<Check> = Vec::new();
    for attempt in 1.. {
        let checks = run()?;
        let missed = checks.iter().filter(|check| !check.is_met());
        let missed: Vec<_> = missed.map(|check| format!("{} {:.2}", check.what, check.value)).collect();
        if best.is_empty() {
            best = checks;
        } else {
            for (best, check) in best.iter_mut().zip(checks) {
                if best.goal.prefers(check.value, best.value) {
                    *best = check;
                }
            }
        }
        let met = best.iter().all(Check::is_met);
        if met || attempt == 3 {
            println!("\n== {scenario} ({attempt} {})", if attempt == 1 { "attempt" } else { "attempts" });
            best.iter().for_each(Check::print);
            return Ok(Verdict { scenario: scenario.to_owned(), attempts: attempt, checks: best, met });
        }
        println!("{scenario}: missed: {}; again", missed.join(", "));
    }
    unreachable!("the third attempt returns")
}
