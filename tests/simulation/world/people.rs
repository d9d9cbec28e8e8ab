//! What people want: orders at the cloud and at the site, guests with their grants, and doubts settled.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use latchd::{
    agent::admin,
    model::{
        AccessMethodId, CardEncode, CardRead, DeviceName, DoorName, EncoderName, Job, JobId, JobState,
        LaneName, Order, Priority, Private, ReservationKey, SlotContent, SlotPut, SystemName, Window,
    },
    queue::{JobFilter, Queue},
    store::{self, Store, StoreError},
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    AGAIN, Action, Book, ENCODERS, LANES, LOCK_COUNT, LONG_ENTRIES, Ordered, ROOMS, SLOTS, World, first_end,
    job_id, noon, printed_end,
};
use crate::{
    desk, judge,
    simulated::{net::Host, side::RESERVE},
};

impl World {
    pub(super) fn order(&mut self) {
        let Some(life) = &self.cloud.life else { return };
        let (db, signals, bridge) = (life.db.clone(), life.signals.clone(), life.bridge);
        let now = self.cloud_clock.now();
        let (number, job) = self.some_job(false);
        self.note(format_args!("order {number}: {}", words(&job.order)));
        let book = Arc::clone(&self.book);
        tokio::spawn(async move {
            if db.run(move |db| db.enqueue_job(now, bridge, &job)).await.is_ok() {
                signals.orders_queued();
                book.lock().unwrap().orders.get_mut(&number).unwrap().held = true;
            }
        });
    }

    /// A person at the site wants a job of their own.
    pub(super) fn order_here(&mut self) -> Option<JobId> {
        let questions = self.agent.life.as_ref().map(|life| life.questions.clone())?;
        let (number, job) = self.some_job(true);
        let job_id = job.job_id;
        self.note(format_args!("order {number} at the site: {}", words(&job.order)));
        let wanted = admin::NewJob {
            job_id: Some(job.job_id),
            system: job.system,
            priority: job.priority,
            expires_in_seconds: job.expires_at.duration_since(job.created_at).as_secs() as u32,
            order: job.order,
        };
        let (answer, told) = oneshot::channel();
        let request = admin::Request::Add { job: Box::new(wanted), by: "night porter".into() };
        if questions.try_send((request, answer)).is_ok() {
            let book = Arc::clone(&self.book);
            tokio::spawn(async move {
                if let Ok(admin::Response::Added { .. }) = told.await {
                    book.lock().unwrap().orders.get_mut(&number).unwrap().held = true;
                }
            });
        }
        Some(job_id)
    }

    /// A person at the site wants a job of their own, and at once does not any more.
    pub(super) fn order_in_vain(&mut self) {
        let questions = self.agent.life.as_ref().map(|life| life.questions.clone());
        let (Some(questions), Some(job_id)) = (questions, self.order_here()) else { return };
        let by = "night porter".to_owned();
        let (answer, _) = oneshot::channel();
        let _ = questions.try_send((admin::Request::Cancel { job_id, by }, answer));
    }

    /// The next order, in the book.
    pub(super) fn some_job(&self, local: bool) -> (u64, Job) {
        let number = self.book.lock().unwrap().orders.len() as u64 + 1;
        let now = self.cloud_clock.now();
        let within = self.one(&[20, 90, 600]);
        let (system, order) = match self.chance(60) {
            true => ("salto", self.some_order(number)),
            false => ("keys", self.some_lock_order(number)),
        };
        let job = Job {
            job_id: job_id(self.seed, number),
            system: SystemName::new(system).unwrap(),
            priority: if self.chance(70) { Priority::Desk } else { Priority::Background },
            created_at: now,
            expires_at: now + SignedDuration::from_secs(within + self.random.below(60) as i64),
            order,
        };
        let ordered = Ordered { job: job.clone(), local, held: false };
        self.book.lock().unwrap().orders.insert(number, ordered);
        (number, job)
    }

    /// Somebody at the site pauses a lane for a while. Nothing may begin there until it is resumed, whatever happens.
    pub(super) fn pause(&mut self) {
        let lane = self.one(&LANES);
        let span = Duration::from_millis(self.one(&[3_000, 30_000, 90_000]));
        let Some(life) = self.agent.life.as_ref().filter(|_| !self.paused.lock().unwrap().contains_key(lane))
        else {
            return;
        };
        let (answer, told) = oneshot::channel();
        let (name, by) = (LaneName::new(lane).unwrap(), "night porter".into());
        if life.questions.try_send((admin::Request::PauseLane { lane: name, by }, answer)).is_ok() {
            let (queue, paused) = (life.queue.clone(), Arc::clone(&self.paused));
            self.note(format_args!("the lane {lane} is paused for {span:?}"));
            tokio::spawn(async move {
                if let Ok(admin::Response::Lanes { .. }) = told.await
                    && let Ok(begun) = queue.run(move |queue| begun_in(queue, lane)).await
                {
                    paused.lock().unwrap().insert(lane, begun);
                }
            });
            self.after(span, Action::Resume(lane));
        }
    }

    pub(super) async fn resume(&mut self, lane: &'static str) {
        let life = self.agent.life.as_ref().map(|life| (life.queue.clone(), life.questions.clone()));
        let Some((queue, questions)) = life else { return self.after(AGAIN, Action::Resume(lane)) };
        let Ok(begun) = queue.run(move |queue| begun_in(queue, lane)).await else {
            return self.after(AGAIN, Action::Resume(lane));
        };
        let before = self.paused.lock().unwrap().remove(lane);
        if let Some(before) = before {
            let mut book = self.book.lock().unwrap();
            book.pauses += 1;
            if before < begun {
                let began = begun.saturating_sub(before);
                book.wrong.push(format!("{began} jobs began in {lane} while it was paused"));
            }
        }
        let (answer, told) = oneshot::channel();
        let (name, by) = (LaneName::new(lane).unwrap(), "night porter".into());
        let asked = questions.try_send((admin::Request::ResumeLane { lane: name, by }, answer)).is_ok();
        match asked && matches!(told.await, Ok(admin::Response::Lanes { .. })) {
            true => self.note(format_args!("the lane {lane} goes on")),
            false => self.after(AGAIN, Action::Resume(lane)),
        }
    }

    pub(super) fn some_order(&self, number: u64) -> Order {
        let encoder = EncoderName::new(format!("{}", 1 + self.random.below(ENCODERS))).unwrap();
        let room = self.random.below(ROOMS);
        let door = |room: u64| DoorName::new(format!("{}", 101 + room)).unwrap();
        let reservation_key = self.some_stay(room);
        let card_wait_seconds = self.one(&[5, 20, 60]);
        if self.is_shared() && self.chance(30) {
            return Order::CardRead(CardRead { encoder, card_wait_seconds });
        }
        match self.random.below(100) {
            0..80 => {
                let mut doors = vec![door(room)];
                if self.chance(10) {
                    doors.push(door((room + 1) % ROOMS));
                }
                Order::CardEncode(CardEncode {
                    encoder,
                    doors,
                    reservation_key: Some(reservation_key),
                    window: Window::new(first_end(), Some(printed_end(number))).unwrap(),
                    access_method_id: AccessMethodId(Uuid::from_u128(number.into())),
                    guest_name: None,
                    card_wait_seconds,
                    begin_again: false,
                })
            }
            80..88 => Order::CardRead(CardRead { encoder, card_wait_seconds }),
            88..96 => Order::StayCheckout { room: door(room), reservation_key },
            _ => Order::InventoryRefresh,
        }
    }

    pub(super) fn some_lock_order(&self, number: u64) -> Order {
        let device = DeviceName::new(format!("k{}", 1 + self.random.below(LOCK_COUNT))).unwrap();
        let slot = format!("s{}", self.random.below(SLOTS));
        match self.random.below(100) {
            0..55 => {
                let now = self.cloud_clock.now();
                let starts_at = now + SignedDuration::from_secs(self.random.below(150) as i64 - 50);
                let long = noon() + SignedDuration::try_from(LONG_ENTRIES).unwrap();
                let short =
                    starts_at.max(now) + SignedDuration::from_secs(10 + self.random.below(200) as i64);
                let ends_at = if self.chance(50) { long } else { short };
                Order::SlotPut(SlotPut {
                    device,
                    slot,
                    content: SlotContent::Pin(Private::new(format!("{}", 100_000 + number))),
                    window: Window::new(starts_at, Some(ends_at)).unwrap(),
                    generation: number,
                })
            }
            55..70 => Order::SlotRemove { device, slot },
            70..95 => Order::DeviceUnlock { device },
            _ => Order::DeviceRead { device },
        }
    }

    /// In some seeds the hotel's own desk makes cards at the lock server as well.
    pub(super) fn is_shared(&self) -> bool {
        self.seed % 5 == 2
    }

    /// Where a live card was read, a stay may be joined for ten minutes: the desk knows that and keeps away.
    pub(super) async fn make_a_foreign_card(&mut self) {
        let ledger = self.salto.command("ledger").await.unwrap();
        let orders = ledger["orders"].as_array().unwrap();
        let reads = || orders.iter().filter(|order| order["fields"][0] == "LT");
        let room = format!("{}", 101 + self.random.below(ROOMS));
        let is_read = |order: &serde_json::Value| {
            order["result"] == "waiting"
                || order["read"].as_array().is_some_and(|read| read.iter().any(|it| *it == *room))
        };
        if reads().any(is_read) {
            return;
        }
        let ended = orders.iter().filter_map(|order| order["ended_as"].as_u64()).max().unwrap_or(0);
        self.command(&format!("foreign-card-made {room}")).await;
        self.book.lock().unwrap().foreign.push((room, ended));
    }

    /// In some seeds guests' cards are ordered as the front desk's software does it, at the cloud's API.
    pub(super) fn has_a_desk(&self) -> bool {
        self.seed.is_multiple_of(3)
    }

    /// The stay of some guest in a room.
    pub(super) fn some_stay(&self, room: u64) -> ReservationKey {
        // Guests follow each other, and now and then an order of a guest who has left comes late.
        let guest = self.begun.elapsed().as_secs() / 70;
        let guest = if self.chance(10) { guest.saturating_sub(1) } else { guest };
        ReservationKey::new(format!("guest-{guest}-of-{room}")).unwrap()
    }

    /// Somebody checks in: a grant, and its card.
    pub(super) fn guest(&mut self) {
        let room = self.random.below(ROOMS);
        let guest = self.book.lock().unwrap().desk.next_guest();
        let wish = desk::Wish {
            number: guest + 50,
            guest,
            room: 101 + room,
            encoder: self.random.below(ENCODERS) as usize,
            stay: self.some_stay(room),
        };
        let number = wish.number;
        self.note(format_args!("guest {number} of {} checks in to {}", wish.stay.as_str(), wish.room));
        self.book.lock().unwrap().desk.guests.insert(guest, desk::Guest::of(&wish));
        let (net, book) = (self.network.at(Host::People), Arc::clone(&self.book));
        tokio::spawn(desk::check_in(net, book, wish));
    }

    /// Somebody leaves sooner or later than was said, or does not stay at all: the card may be waiting, at work, in doubt,
    /// written, or not.
    pub(super) fn change_grant(&mut self) {
        let deletes = self.chance(25);
        let (grant, end) = {
            let mut book = self.book.lock().unwrap();
            let mut guests: Vec<_> = book.desk.guests.values_mut().filter(|it| it.grant.is_some()).collect();
            let which = self.random.below(guests.len().max(1) as u64) as usize;
            let Some(guest) = guests.get_mut(which) else { return };
            let end = (!deletes).then(|| guest.another_end(|below| self.random.below(below)));
            (guest.grant.clone().unwrap(), end)
        };
        let (net, book) = (self.network.at(Host::People), Arc::clone(&self.book));
        match end {
            Some(number) => {
                self.note(format_args!("the grant {grant} is to end at {}", printed_end(number)));
                tokio::spawn(desk::change_end(net, book, grant, number));
            }
            None => {
                self.note(format_args!("the grant {grant} is to be deleted"));
                tokio::spawn(desk::delete(net, book, grant));
            }
        }
    }

    /// Somebody asks once more for a guest's card: it may be under way, in doubt, written, or not.
    pub(super) fn encode_again(&mut self) {
        let methods: Vec<_> = {
            let book = self.book.lock().unwrap();
            book.desk.guests.values().filter_map(|guest| guest.method.clone()).collect()
        };
        let Some(method) = methods.get(self.random.below(methods.len().max(1) as u64) as usize) else {
            return;
        };
        let encoder = self.random.below(ENCODERS) as usize;
        self.note(format_args!("the card {method} is asked for once more, on encoder {}", encoder + 1));
        tokio::spawn(desk::encode(self.network.at(Host::People), method.clone(), encoder));
    }

    pub(super) async fn look_at_attempts(&mut self) {
        let Some(life) = &self.cloud.life else { return };
        let Ok(rows) = life.db.run(desk::attempts).await else { return };
        let mut book = self.book.lock().unwrap();
        let Book { attempts, wrong, .. } = &mut *book;
        attempts.look_at(rows, wrong);
    }

    /// What is under way is recorded on a full disk as well, in the room that was kept for it.
    pub(super) async fn look_at_full_disk(&mut self, host: Host) {
        let stored = match host {
            Host::Cloud => match &self.cloud.life {
                Some(life) if life.db.health().borrow().disk == store::Disk::Full => {
                    life.db
                        .run(|db| {
                            Ok(db
                                .connection()
                                .execute("UPDATE bridge_order SET created_at = created_at", [])?)
                        })
                        .await
                }
                _ => return,
            },
            Host::Agent | Host::Salto | Host::Locks | Host::People => match &self.agent.life {
                Some(life) if life.queue.health().borrow().disk == store::Disk::Full => {
                    let touch = "UPDATE job SET received_at = received_at";
                    life.queue.run(|queue| Ok(queue.connection().execute(touch, [])?)).await
                }
                _ => return,
            },
        };
        let free = self.disk(host).storage().free_bytes().unwrap();
        let mut book = self.book.lock().unwrap();
        book.full_disks += 1;
        // One that dies meanwhile says nothing about its disk.
        let was_given_up = self.filled_beside_reserve.contains(&host);
        if was_given_up && free < RESERVE / 4 || stored.is_err_and(|error| error.is_disk_full()) {
            book.wrong.push(format!("{host:?} has no room on its full disk for what is under way"));
        }
    }

    pub(super) fn cancel(&mut self) {
        let known = self.book.lock().unwrap().orders.len() as u64;
        let Some(life) = self.cloud.life.as_ref().filter(|_| 0 < known) else { return };
        let number = known - self.random.below(known.min(5));
        let (db, signals, bridge, now) =
            (life.db.clone(), life.signals.clone(), life.bridge, self.cloud_clock.now());
        let job_id = job_id(self.seed, number);
        self.note(format_args!("cancel {number}"));
        tokio::spawn(async move {
            if db.run(move |db| db.enqueue_cancel(now, bridge, job_id)).await.is_ok() {
                signals.orders_queued();
            }
        });
    }

    pub(super) async fn lay_a_card(&mut self) {
        let encoder = 1 + self.random.below(ENCODERS);
        let _ = self.salto.command(&format!("remove {encoder}")).await;
        if self.is_shared() && self.chance(50) {
            // A guest comes back with a card.
            let ledger = self.salto.command("ledger").await.unwrap();
            let orders = ledger["orders"].as_array().unwrap().iter().rev();
            let cards: Vec<_> = orders.filter_map(|order| order["card"].as_str()).take(4).collect();
            if !cards.is_empty() {
                let card = self.one(&cards);
                let _ = self.salto.command(&format!("place {card} on {encoder}")).await;
                return;
            }
        }
        if self.healed || self.chance(80) {
            self.cards += 1;
            let kind = if self.healed || self.chance(90) { "blank" } else { self.one(&["staff", "damaged"]) };
            let _ = self.salto.command(&format!("place c{} {kind} on {encoder}", self.cards)).await;
        }
    }

    /// A person goes to see what became of a job in doubt, and says so.
    pub(super) async fn settle_a_doubt(&mut self) {
        let Some(life) = &self.agent.life else { return };
        if !self.healed && self.chance(60) {
            return;
        }
        let filter = JobFilter { state: Some(JobState::Unknown), lane: None, limit: 50 };
        let doubts = life.queue.run(move |queue: &mut Queue| queue.jobs(filter)).await;
        let Ok(doubts) = doubts else { return };
        // Cards are told apart by the guest's number, which a cloud that was set back may order once more.
        let can_be_told = |number| {
            let book = self.book.lock().unwrap();
            match book.orders.get(&number).map(|ordered| &ordered.job.order) {
                Some(Order::CardEncode(_)) => true,
                Some(_) => false,
                None => book.desk.guest_with(number).is_some() && !book.cloud_restored,
            }
        };
        let mut found = None;
        for doubt in doubts {
            let job_id = doubt.job_id;
            let Ok(Some(detail)) = life.queue.run(move |queue: &mut Queue| queue.job(job_id)).await else {
                return;
            };
            if let Some(number) =
                detail.job.as_ref().and_then(judge::card_number).filter(|it| can_be_told(*it))
            {
                found = Some((job_id, number));
                break;
            }
        }
        let Some((job_id, number)) = found else { return };
        let ledger = self.salto.command("ledger").await.unwrap();
        // While a command may still arrive, or its encoder waits for the card, nobody can say.
        let waits = !self.network.is_quiet(Host::Agent, Host::Salto);
        let waits =
            waits || ledger["orders"].as_array().unwrap().iter().any(|order| order["result"] == "waiting");
        if waits {
            return;
        }
        let Some(cloud) = &self.cloud.life else { return };
        let Ok(attempts) = cloud.db.run(desk::attempts).await else { return };
        let written = judge::times_done(&ledger, number);
        let Some(verdict) = desk::verdict(&attempts, &job_id.to_string(), number, written) else { return };
        let (answer, told) = oneshot::channel();
        let request = admin::Request::Resolve { job_id, verdict, by: "night porter".into() };
        if life.questions.try_send((request, answer)).is_ok() {
            self.note(format_args!("job {number} is said to be {verdict:?}"));
            let book = Arc::clone(&self.book);
            tokio::spawn(async move {
                if told.await.is_ok() {
                    book.lock().unwrap().settled += 1;
                }
            });
        }
    }
}

/// How often jobs have begun in a lane.
fn begun_in(queue: &mut Queue, lane: &str) -> Result<u64, StoreError> {
    let begun = "SELECT coalesce(sum(attempt), 0) FROM job WHERE lane = ?";
    Ok(queue.connection().query_row(begun, [lane], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

fn words(order: &Order) -> String {
    match order {
        Order::CardEncode(card) => {
            let doors: Vec<_> = card.doors.iter().map(DoorName::as_str).collect();
            let key = card.reservation_key.as_ref().map_or("", ReservationKey::as_str);
            format!("card for {} of {key} on {}", doors.join("+"), card.encoder)
        }
        Order::StayCheckout { room, reservation_key } => {
            format!("check-out of {} from {room}", reservation_key.as_str())
        }
        Order::SlotPut(put) => {
            let ends_at = put.window.ends_at().unwrap();
            format!("{} into {} from {} to {ends_at}", put.slot, put.device, put.window.starts_at())
        }
        Order::SlotRemove { device, slot } => format!("{slot} out of {device}"),
        Order::DeviceUnlock { device } => format!("open {device}"),
        other => other.kind().as_str().to_owned(),
    }
}
