//! How everything comes to rest, and what is found then.

use std::{collections::BTreeMap, time::Duration};

use latchd::{
    model::JobState,
    queue::Queue,
    store::{self, Store},
};

use super::{Action, LANES, ROADS, Story, World, job_id};
use crate::{
    desk,
    judge::{self, Evidence},
    simulated::{net::Road, side::doom},
};

impl World {
    pub(super) async fn heal(&mut self) {
        self.note("everything is mended");
        self.healed = true;
        self.network.make_fragile(None);
        let good = Road::Open(Duration::from_millis(2));
        for road in ROADS {
            self.network.set_road(road.0, road.1, good);
        }
        for disk in [&self.cloud.disk, &self.agent.disk] {
            disk.limit(None);
            disk.fail_syncs(0);
            disk.die_after(u64::MAX >> 1);
        }
        for process in [
            self.cloud.life.as_ref().map(|life| &life.process),
            self.agent.life.as_ref().map(|life| &life.process),
        ]
        .into_iter()
        .flatten()
        {
            doom(process, u64::MAX);
        }
        self.mend_locks().await;
        self.command("fault clear").await;
        let now = self.cloud_clock.now();
        self.command(&format!("clock set {now}")).await;
        self.agent_clock.jump_to(now);
        self.soon(1, Action::StartCloud);
        self.soon(1, Action::StartAgent);
        for lane in LANES {
            self.after(Duration::from_secs(1), Action::Resume(lane));
        }
    }

    /// What is left to do or to say, with or without what waits for its time.
    pub(super) async fn unrest(&mut self, with_timers: bool) -> Option<String> {
        let (Some(cloud), Some(agent)) = (&self.cloud.life, &self.agent.life) else {
            return Some("a side is down".into());
        };
        let disks = [cloud.db.health().borrow().disk, agent.queue.health().borrow().disk];
        if disks.contains(&store::Disk::Full) {
            return Some("a side takes its disk for full".into());
        }
        let open = cloud.db.run(|db| {
            let open = "SELECT (SELECT count(*) FROM bridge_order WHERE over_at IS NULL)
                             + (SELECT count(*) FROM action_attempt WHERE status = 'pending')";
            Ok(db.connection().query_row(open, [], |row| row.get::<_, i64>(0))?)
        });
        let busy = agent.queue.run(move |queue: &mut Queue| {
            let counts = queue.counts()?;
            let at = |state| counts.by_state.get(&state).copied().unwrap_or(0);
            let timers = "SELECT count(*) FROM job WHERE state = 'waiting' AND due_at IS NOT NULL";
            let timers: i64 = queue.connection().query_row(timers, [], |row| row.get(0))?;
            let timers = if with_timers { 0 } else { timers.cast_unsigned() };
            Ok((at(JobState::Waiting) - timers, at(JobState::Sent), counts.reports_waiting))
        });
        match (open.await, busy.await) {
            (Ok(0), Ok((0, 0, 0))) => None,
            (open, busy) => Some(format!("open orders: {open:?}; waiting, sent, reports: {busy:?}")),
        }
    }

    pub(super) async fn end(mut self) -> Story {
        let unrest = self.unrest(true).await;
        let (tables_at, tables) = self.tables.take().unwrap_or_default();
        let mut ledgers = Vec::new();
        let mut empty = true;
        for lock in &self.locks {
            ledgers.push(lock.command("ledger").await.unwrap());
            empty &= lock.command("table").await.unwrap()["table"].as_array().unwrap().is_empty();
        }
        let simulated = self.begun.elapsed();
        let circles = std::mem::take(&mut *self.circles.0.lock().unwrap());
        let ledger = self.salto.command("ledger").await.unwrap();
        let mut evidence = Evidence {
            ledger,
            circles,
            unrest,
            tables_at,
            tables,
            locks: ledgers,
            empty,
            ends: BTreeMap::new(),
            attempts: Vec::new(),
            reserves: [&self.cloud.disk, &self.agent.disk]
                .map(|disk| disk.storage().size("reserve").unwrap()),
            local_jobs_told: (0, 0),
            arrived: Vec::new(),
            agent_jobs: BTreeMap::new(),
            most_steps: self.most_steps,
            crashes: self.cloud.crashes + self.agent.crashes,
        };
        if let (Some(cloud), Some(agent)) = (&self.cloud.life, &self.agent.life) {
            let numbers: Vec<u64> = self.book.lock().unwrap().orders.keys().copied().collect();
            if let Ok(told) = cloud.db.run(judge::told_of_local_jobs).await {
                evidence.local_jobs_told = told;
            }
            if let Ok(attempts) = cloud.db.run(desk::attempts).await {
                evidence.attempts = attempts;
            }
            if let Ok(arrived) = agent.queue.run(judge::arrived).await {
                evidence.arrived = arrived;
            }
            for number in numbers {
                let job_id = job_id(self.seed, number);
                let local = self.book.lock().unwrap().orders[&number].local;
                // A side that cannot answer has not come to rest either.
                if let Ok(end) = cloud.db.run(move |db| judge::cloud_view(db, job_id, local)).await {
                    evidence.ends.insert(number, end);
                }
                if let Ok(Some(job)) = agent.queue.run(move |queue: &mut Queue| queue.job(job_id)).await {
                    evidence.agent_jobs.insert(number, job);
                }
            }
            let (cloud, agent) = (cloud.process.polls(), agent.process.polls());
            evidence.most_steps = self.most_steps.max(cloud).max(agent);
            let changes = (self.cloud.disk.changes(), self.agent.disk.changes());
            self.note(format_args!("the end: {cloud} and {agent} steps, {changes:?} changes"));
        }
        for (number, end) in &evidence.ends {
            self.history.push(format!("job {number}: {end:?}"));
        }
        for attempt in &evidence.attempts {
            self.history.push(format!("{attempt:?}"));
        }
        for order in evidence.ledger["orders"].as_array().unwrap() {
            self.history.push(format!("device: {order}"));
        }
        for (lock, ledger) in (1..).zip(&evidence.locks) {
            for deed in ledger["ledger"].as_array().unwrap() {
                self.history.push(format!("lock {lock}: {deed}"));
            }
        }
        let book = self.book.lock().unwrap();
        Story {
            verdict: judge::judge(&book, &evidence),
            history: std::mem::take(&mut self.history),
            simulated,
        }
    }
}
