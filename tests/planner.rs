//! Codes against pretend sites: whatever is asked, and whatever happens to bridges and locks, it ends as it was asked.
//!
//! The planner and the reconciler work on a [`Book`]; the sites are a plain picture of what an agent and its keypad locks
//! do: an order decides its slot from its arrival on, a put waits for its lead, what has ended is removed, reports come
//! one after another, and a doubt may be settled long after newer orders were done. They do not imitate limits of a site.
//!
//! `LATCHD_CASES=20000 cargo test --test planner` tries more.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use latchd::{
    grants::{
        Event, PinMark, Subject,
        codes::{Action, Book, CodeGrant, Content, Deed, Lock, MOST_DOUBTS, Moment, Slot, SlotOrder, Told},
        pin,
    },
    model::{
        AccessGrantId, AccessMethodId, Code, DeviceId, JobId, PinConstraint, PinRules, Private, SlotContent,
        SlotSeen, Window,
    },
    seams::Random,
};

const LOCKS: u64 = 4;
const LEAD: SignedDuration = SignedDuration::from_mins(15);
const STEPS: u64 = 45;

fn device(n: u64) -> DeviceId {
    DeviceId(uuid::Uuid::from_u128(0xD0 + u128::from(n)))
}

/// A mark as good as any where nobody looks for the PIN behind it.
fn mark(pin: &str) -> PinMark {
    let mut bytes = [0; 32];
    bytes[..pin.len()].copy_from_slice(pin.as_bytes());
    PinMark(bytes)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What a lock holds under a key: local times without an offset, as such locks keep them.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    generation: u64,
    pin: String,
    starts_at: DateTime,
    ends_at: Option<DateTime>,
    window: Window,
}

/// A job at the site.
#[derive(Debug, Clone)]
struct Waiting {
    order: SlotOrder,
}

/// A lock with the part of its agent that sees to it.
#[derive(Debug, Default)]
struct Keypad {
    is_away: bool,
    table: BTreeMap<AccessMethodId, Entry>,
    waiting: Vec<Waiting>,
    /// When the agent empties a slot.
    timers: BTreeMap<AccessMethodId, Timestamp>,
    /// A PIN that somebody typed in at the lock.
    foreign: Option<String>,
}

/// What a bridge says.
#[derive(Debug)]
enum Word {
    Ended { order: SlotOrder, told: Told },
    Resolved { order: SlotOrder, told: Told },
    Emptied { device: DeviceId, method: AccessMethodId },
    Read { device: DeviceId, seen: Vec<SlotSeen> },
}

/// What was asked, in plain words.
#[derive(Debug, Clone)]
struct Asked {
    window: Window,
    devices: Vec<DeviceId>,
    /// Each with the devices whose code was taken back.
    places: Vec<(u32, BTreeSet<DeviceId>)>,
    next_place: u32,
    is_deleted: bool,
}

struct World {
    random: Random,
    ids: Random,
    now: Timestamp,
    zone: TimeZone,
    book: Book,
    keypads: BTreeMap<DeviceId, Keypad>,
    link_is_up: bool,
    /// Nothing goes wrong any more.
    is_quiet: bool,
    to_bridge: VecDeque<SlotOrder>,
    /// Handed to the bridge, and no end heard of, oldest first.
    handed: Vec<SlotOrder>,
    to_cloud: VecDeque<Word>,
    /// Jobs in doubt, with what became of them.
    doubtful: Vec<(SlotOrder, Told)>,
    asked: BTreeMap<AccessGrantId, Asked>,
    events: Vec<Event>,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = Random::seeded(seed);
        // Oslo sets its clocks back at 01:00Z on 25 October 2026, and forward on 28 March 2027.
        let start = if random.below(2) == 0 { "2026-10-24T20:00:00Z" } else { "2027-03-27T20:00:00Z" };
        let mut book = Book::default();
        let mut keypads = BTreeMap::new();
        for n in 0..LOCKS {
            let lengths =
                [vec![4, 5, 6], vec![6], vec![4, 8], vec![5, 6, 7]][usize::try_from(n).unwrap()].clone();
            let constraints = if n == 1 { vec![PinConstraint::NoZeros] } else { Vec::new() };
            let lock = Lock {
                pins: Some(PinRules { lengths, constraints }),
                takes_cards: false,
                is_here: true,
                lead: LEAD,
                taken: Vec::new(),
            };
            book.devices.insert(device(n), lock);
            keypads.insert(device(n), Keypad::default());
        }
        Self {
            ids: Random::seeded(seed ^ 0x5EED),
            now: at(start),
            zone: TimeZone::get("Europe/Oslo").unwrap(),
            random,
            book,
            keypads,
            link_is_up: true,
            is_quiet: false,
            to_bridge: VecDeque::new(),
            handed: Vec::new(),
            to_cloud: VecDeque::new(),
            doubtful: Vec::new(),
            asked: BTreeMap::new(),
            events: Vec::new(),
            story: Vec::new(),
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn one<T: Clone>(&self, of: &[T]) -> Option<T> {
        let at = self.below(of.len() as u64);
        of.get(usize::try_from(at).unwrap()).cloned()
    }

    /// One change of the book, as the store makes it.
    fn change(&mut self, change: impl FnOnce(&mut Book, &Moment<'_>)) {
        // What is still in the queue was never handed to the bridge.
        let queued: BTreeSet<JobId> = self.to_bridge.iter().map(|order| order.job).collect();
        for slot in self.book.slots.values_mut() {
            if let Some(way) = &mut slot.work.under_way {
                way.was_handed = !queued.contains(&way.job);
            }
        }
        let moment = Moment { now: self.now, random: &self.ids, mark: &mark };
        change(&mut self.book, &moment);
        let orders = self.book.reconcile(&moment);
        for order in orders {
            match order.action {
                Action::Withdraw => {
                    let before = self.to_bridge.len();
                    self.to_bridge.retain(|queued| queued.job != order.job);
                    assert_eq!(self.to_bridge.len() + 1, before, "only what was never handed is taken back");
                }
                _ => self.to_bridge.push_back(order),
            }
        }
        self.events.append(&mut self.book.events);
    }

    fn step(&mut self) {
        let what = self.below(100);
        match what {
            0..22 => self.create(),
            22..32 => self.retime(),
            32..38 => self.retarget(),
            38..44 => self.request_more(),
            44..50 => self.delete_method(),
            50..58 => self.delete_grant(),
            58..64 => {
                let keypad = device(self.below(LOCKS));
                let away = self.below(2) == 0;
                self.told(format!("{keypad} is away: {away}"));
                self.keypads.get_mut(&keypad).unwrap().is_away = away;
            }
            64..68 => self.device_comes_or_goes(),
            68..74 => {
                self.link_is_up = !self.link_is_up;
                self.told(format!("the link is up: {}", self.link_is_up));
            }
            74..76 => {
                let keypad = device(self.below(LOCKS));
                self.told(format!("{keypad} loses its memory"));
                self.keypads.get_mut(&keypad).unwrap().table.clear();
            }
            76..78 => self.agent_is_lost(),
            78..80 => self.somebody_types_a_pin(),
            80..83 => self.read(device(self.below(LOCKS))),
            83..86 => self.somebody_settles_a_doubt(),
            _ => {
                let spans = [1, 7, 20, 59, 60, 61, 180, 600, 60 * 26];
                let minutes = self.one(&spans).unwrap();
                self.pass(SignedDuration::from_mins(minutes));
            }
        }
        self.exchange();
        self.check();
    }

    fn told(&mut self, what: String) {
        let line = format!("{} {what}", self.now);
        self.story.push(line);
    }

    fn window(&self) -> Window {
        let from = self.now + SignedDuration::from_mins(i64::try_from(self.below(600)).unwrap() - 60);
        let until =
            self.now.max(from) + SignedDuration::from_mins(1 + i64::try_from(self.below(900)).unwrap());
        Window::new(from, (self.below(8) > 0).then_some(until)).unwrap()
    }

    fn some_devices(&self) -> Vec<DeviceId> {
        let chosen = 1 + self.below((1 << LOCKS) - 1);
        let here = |n: &u64| self.book.devices[&device(*n)].is_here;
        (0..LOCKS).filter(|n| chosen & (1 << n) != 0).filter(here).map(device).collect()
    }

    fn wish(&self) -> Option<Private> {
        let wishes = ["4829", "482917", "48291", "5050", "482917"];
        (self.below(3) == 0).then(|| Private::new(self.one(&wishes).unwrap()))
    }

    fn live(&self) -> Vec<AccessGrantId> {
        self.asked.iter().filter(|(_, asked)| !asked.is_deleted).map(|(id, _)| *id).collect()
    }

    fn create(&mut self) {
        let (window, devices, wish) = (self.window(), self.some_devices(), self.wish());
        if !devices.is_empty() {
            self.grant(window, devices, wish);
        }
    }

    fn grant(&mut self, window: Window, devices: Vec<DeviceId>, wish: Option<Private>) -> AccessGrantId {
        let grant = AccessGrantId(self.ids.uuid());
        // Everybody is one of three people.
        let habits: Vec<_> = if self.below(3) == 0 {
            self.book.methods.values().next_back().map(|method| method.pin.clone()).into_iter().collect()
        } else {
            Vec::new()
        };
        let own = CodeGrant {
            window,
            deleted_at: None,
            deletion_told: false,
            devices: devices.clone(),
            opened: BTreeSet::new(),
            doors_open: true,
            habits,
            requests: BTreeMap::new(),
        };
        self.told(format!("grant {grant} {window:?} {devices:?} {:?}", wish.as_ref().map(Private::expose)));
        let asked =
            Asked { window, devices, places: vec![(0, BTreeSet::new())], next_place: 1, is_deleted: false };
        self.asked.insert(grant, asked);
        self.change(|book, at| {
            book.grants.insert(grant, own);
            book.request(at, grant, 0, wish.as_ref());
        });
        grant
    }

    fn request_more(&mut self) {
        let Some(grant) = self.one(&self.live()) else { return };
        if self.asked[&grant].window.is_over(self.now) {
            return;
        }
        let wish = self.wish();
        let place = self.asked[&grant].next_place;
        self.asked.get_mut(&grant).unwrap().next_place += 1;
        self.told(format!("grant {grant} wants one more"));
        self.asked.get_mut(&grant).unwrap().places.push((place, BTreeSet::new()));
        self.change(|book, at| drop(book.request(at, grant, place, wish.as_ref())));
    }

    fn retime(&mut self) {
        let Some(grant) = self.one(&self.live()) else { return };
        let window = self.window();
        self.told(format!("grant {grant} at {window:?}"));
        self.asked.get_mut(&grant).unwrap().window = window;
        let devices = self.here(&self.asked[&grant].devices);
        self.change(|book, at| {
            book.retime(at, grant, window);
            book.retarget(at, grant, devices);
        });
    }

    fn here(&self, devices: &[DeviceId]) -> Vec<DeviceId> {
        devices.iter().copied().filter(|device| self.book.devices[device].is_here).collect()
    }

    fn retarget(&mut self) {
        let Some(grant) = self.one(&self.live()) else { return };
        let devices = self.some_devices();
        self.told(format!("grant {grant} leads to {devices:?}"));
        self.asked.get_mut(&grant).unwrap().devices.clone_from(&devices);
        self.change(|book, at| book.retarget(at, grant, devices));
    }

    fn delete_method(&mut self) {
        let methods: Vec<_> = self.book.methods.iter().filter(|(_, own)| own.deleted_at.is_none()).collect();
        let methods: Vec<_> =
            methods.into_iter().map(|(id, own)| (*id, own.grant, own.place, own.devices.clone())).collect();
        let Some((method, grant, place, devices)) = self.one(&methods) else { return };
        self.told(format!("method {method} goes"));
        self.change(|book, at| book.delete_method(at, method));
        // What is left of the same request stays; nothing new comes for the devices that lost it.
        let others = self.book.methods.iter().any(|(id, own)| {
            *id != method && own.grant == grant && own.place == place && own.deleted_at.is_none()
        });
        let places = &mut self.asked.get_mut(&grant).unwrap().places;
        if others {
            let (_, declined) = places.iter_mut().find(|(own, _)| *own == place).unwrap();
            declined.extend(devices);
        } else {
            places.retain(|(own, _)| *own != place);
        }
    }

    fn delete_grant(&mut self) {
        let Some(grant) = self.one(&self.live()) else { return };
        self.told(format!("grant {grant} goes"));
        self.asked.get_mut(&grant).unwrap().is_deleted = true;
        self.change(|book, at| book.delete_grant(at, grant));
    }

    fn device_comes_or_goes(&mut self) {
        let which = device(self.below(LOCKS));
        let lock = self.book.devices.get_mut(&which).unwrap();
        lock.is_here = !lock.is_here;
        let is_here = lock.is_here;
        self.told(format!("{which} is in the inventory: {is_here}"));
        self.follow();
    }

    /// The store looks at every grant that leads to a device which came or went.
    fn follow(&mut self) {
        let asked = self.asked.clone();
        for (grant, asked) in asked.iter().filter(|(_, asked)| !asked.is_deleted) {
            let devices = self.here(&asked.devices);
            self.change(|book, at| book.retarget(at, *grant, devices));
        }
        for n in 0..LOCKS {
            self.change(|book, _| book.try_again(device(n)));
        }
    }

    /// New hardware takes the agent's place: it knows nothing of jobs, slots and timers.
    fn agent_is_lost(&mut self) {
        self.told("the agent loses its memory".into());
        self.to_cloud.clear();
        for keypad in self.keypads.values_mut() {
            keypad.waiting.clear();
            keypad.timers.clear();
        }
        for order in std::mem::take(&mut self.handed) {
            self.change(|book, at| book.lost(at, order.device, order.method, order.job, deed(&order)));
        }
        for n in 0..LOCKS {
            self.read(device(n));
        }
    }

    fn somebody_types_a_pin(&mut self) {
        let which = device(self.below(LOCKS));
        let pins: Vec<_> = ["4829", "482917", "48291"].into();
        let pin = self.one(&pins).unwrap();
        let keypad = self.keypads.get_mut(&which).unwrap();
        if keypad.table.values().all(|entry| entry.pin != pin) {
            keypad.foreign = Some(pin.to_owned());
            self.told(format!("somebody types {pin} at {which}"));
        }
    }

    /// What was in doubt is said at last, perhaps long after it was done again.
    fn somebody_settles_a_doubt(&mut self) {
        if self.doubtful.is_empty() {
            return;
        }
        let place = usize::try_from(self.below(self.doubtful.len() as u64)).unwrap();
        let (order, told) = self.doubtful.remove(place);
        self.told(format!("{} at {} is settled: {told:?}", order.method, order.device));
        self.to_cloud.push_back(Word::Resolved { order, told });
    }

    fn read(&mut self, which: DeviceId) {
        let keypad = &self.keypads[&which];
        if !keypad.is_away && self.book.devices[&which].is_here {
            let seen = |(key, entry): (&AccessMethodId, &Entry)| SlotSeen {
                slot: key.to_string(),
                generation: entry.generation,
            };
            let seen = keypad.table.iter().map(seen).collect();
            self.to_cloud.push_back(Word::Read { device: which, seen });
        }
    }

    /// Time passes in steps, so that nothing happens later than it must.
    fn pass(&mut self, span: SignedDuration) {
        let until = self.now + span;
        while self.now < until {
            let due = self.book.due(self.now).unwrap_or(until);
            let agents = self.keypads.values().flat_map(|keypad| {
                let timers = keypad.timers.values().copied();
                let puts = keypad.waiting.iter().map(|waiting| due_at(&waiting.order));
                timers.chain(puts).filter(|due| *due > self.now)
            });
            self.now = agents.chain([due, until]).filter(|due| *due > self.now).min().unwrap().min(until);
            self.exchange();
        }
    }

    /// Bridge and cloud say what they have to say, and the agent does what it can.
    fn exchange(&mut self) {
        for _ in 0..200 {
            self.change(Book::clock);
            let orders = if self.link_is_up { std::mem::take(&mut self.to_bridge) } else { VecDeque::new() };
            let none_came = orders.is_empty();
            for order in orders {
                self.arrives(order);
            }
            let did = self.work();
            let words = if self.link_is_up { std::mem::take(&mut self.to_cloud) } else { VecDeque::new() };
            if none_came && !did && words.is_empty() {
                return;
            }
            for word in words {
                self.hear(word);
            }
        }
        panic!("bridge and cloud do not come to an end");
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Ended { order, told } => {
                self.handed.retain(|handed| handed.job != order.job);
                let deed = deed(&order);
                self.change(|book, at| book.reported(at, order.device, order.method, order.job, deed, &told));
            }
            Word::Resolved { order, told } => {
                let deed = deed(&order);
                self.change(|book, at| book.resolved(at, order.device, order.method, order.job, deed, &told));
            }
            Word::Emptied { device, method } => self.change(|book, at| book.emptied(at, device, method)),
            Word::Read { device, seen } => self.change(|book, at| {
                // What nobody knows any more is taken into the book, as the store does.
                for seen in &seen {
                    book.slots.entry((device, seen.slot.parse().unwrap())).or_default();
                }
                book.read(at, device, &seen);
            }),
        }
    }

    /// An order decides its slot; what waits for the slot ends, and what may be there goes first where it only comes
    /// later.
    fn arrives(&mut self, order: SlotOrder) {
        self.handed.push(order.clone());
        let keypad = self.keypads.get_mut(&order.device).unwrap();
        let (of_slot, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut keypad.waiting)
            .into_iter()
            .partition(|waiting| waiting.order.method == order.method);
        keypad.waiting = rest;
        for old in of_slot {
            let told = Told::NotDone { code: Code::Superseded, message: String::new() };
            self.to_cloud.push_back(Word::Ended { order: old.order, told });
        }
        if due_at(&order) > self.now && keypad.table.contains_key(&order.method) {
            keypad.timers.insert(order.method, self.now);
        }
        keypad.waiting.push(Waiting { order });
    }

    /// Does what has come due at locks that can be reached. Says whether anything was done.
    fn work(&mut self) -> bool {
        let mut did = false;
        let now = self.now;
        let doubtful = !self.is_quiet && self.below(6) == 0;
        for (which, keypad) in &mut self.keypads {
            // Too late is too late, wherever the lock is.
            let (late, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut keypad.waiting)
                .into_iter()
                .partition(|waiting| is_over(&waiting.order, now));
            keypad.waiting = waiting;
            for late in late {
                did = true;
                let told = Told::NotDone { code: Code::Expired, message: String::new() };
                self.to_cloud.push_back(Word::Ended { order: late.order, told });
            }
            if keypad.is_away || !self.book.devices[which].is_here {
                continue;
            }
            let ended: Vec<_> =
                keypad.timers.iter().filter(|(_, due)| **due <= now).map(|(method, _)| *method).collect();
            for method in ended {
                did = true;
                keypad.timers.remove(&method);
                keypad.table.remove(&method);
                self.to_cloud.push_back(Word::Emptied { device: *which, method });
            }
            let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut keypad.waiting)
                .into_iter()
                .partition(|waiting| due_at(&waiting.order) <= now);
            keypad.waiting = waiting;
            for Waiting { order } in ready {
                did = true;
                let told = keypad.perform(&order, &self.zone, now);
                let told = if doubtful {
                    self.doubtful.push((order.clone(), told));
                    Told::Doubt
                } else {
                    told
                };
                self.to_cloud.push_back(Word::Ended { order, told });
            }
        }
        did
    }

    /// What holds after every step, quiet or not.
    fn check(&self) {
        for (which, keypad) in &self.keypads {
            for (method, entry) in &keypad.table {
                let Some(own) = self.book.methods.get(method) else {
                    panic!("{} {method} is in {which} ({entry:?}) and shown as gone", self.now);
                };
                let listed = self.book.still_there(*method).iter().any(|(on, _)| on == which);
                let is_heard_of = self.book.slots.get(&(*which, *method)).is_some_and(Slot::may_hold);
                let should_be_gone =
                    own.deleted_at.is_some() || own.has_ended || !own.devices.contains(which);
                assert!(
                    !should_be_gone || listed || !is_heard_of,
                    "{method} is still in {which}, and nobody says so"
                );
                assert!(is_heard_of || self.is_on_its_way(*method), "{method} is in {which} unheard of");
            }
        }
        self.check_events();
    }

    /// A bridge will tell of it.
    fn is_on_its_way(&self, method: AccessMethodId) -> bool {
        self.to_cloud.iter().any(|word| match word {
            Word::Ended { order, .. } => order.method == method,
            Word::Resolved { .. } => false,
            Word::Emptied { method: own, .. } => *own == method,
            Word::Read { .. } => false,
        })
    }

    /// No event twice, and each in its order.
    fn check_events(&self) {
        let mut methods: BTreeMap<AccessMethodId, &str> = BTreeMap::new();
        let mut grants = BTreeSet::new();
        for event in &self.events {
            let before = match event.subject {
                Subject::Method(method, _) => methods.get(&method).copied(),
                Subject::Grant(grant) => {
                    let is_new = grants.insert((grant, event.kind));
                    let again = [
                        "access_grant.access_granted_to_all_doors",
                        "access_grant.could_not_create_requested_access_methods",
                    ]
                    .contains(&event.kind);
                    assert!(is_new || again, "{grant} {} twice", event.kind);
                    continue;
                }
                _ => panic!("{event:?}"),
            };
            let Subject::Method(method, _) = event.subject else { continue };
            let next = event.kind.strip_prefix("access_method.").unwrap();
            let follows = match next {
                "created" => before.is_none(),
                "issued" => before == Some("created"),
                "revoked" => matches!(before, Some("issued" | "reissued")),
                "reissued" => before == Some("revoked"),
                "deleted" => before.is_some_and(|before| before != "deleted"),
                "delay_in_issuing" | "failed_to_issue" => {
                    assert!(
                        before != Some("deleted") && before.is_some(),
                        "{method} {next} after {before:?}"
                    );
                    continue;
                }
                other => panic!("{other}"),
            };
            assert!(follows, "{method} {next} after {before:?}");
            methods.insert(method, next);
        }
    }

    /// Everything is mended, everybody has said everything, and time passes until nothing more follows.
    fn quiet(&mut self) {
        self.told("quiet".into());
        (self.link_is_up, self.is_quiet) = (true, true);
        for keypad in self.keypads.values_mut() {
            keypad.is_away = false;
        }
        for lock in self.book.devices.values_mut() {
            lock.is_here = true;
        }
        self.exchange();
        self.follow();
        self.exchange();
        for _ in 0..5 {
            for n in 0..LOCKS {
                self.read(device(n));
            }
            self.exchange();
            self.pass(SignedDuration::from_mins(31));
            self.check();
        }
        // What ended a moment ago is given to the agent to remove, and is removed from here only after that.
        let grace = SignedDuration::from_mins(3);
        while self
            .asked
            .values()
            .any(|asked| asked.window.ends_at().is_some_and(|end| end <= self.now && self.now < end + grace))
        {
            self.pass(SignedDuration::from_mins(1));
        }
    }

    fn check_quiet(&self) {
        let mut wanted: BTreeMap<DeviceId, BTreeMap<AccessMethodId, (String, Window)>> = BTreeMap::new();
        for (grant, asked) in &self.asked {
            let own: Vec<_> =
                self.book.methods_of(*grant).filter(|(_, method)| method.deleted_at.is_none()).collect();
            assert!(
                !asked.is_deleted || self.book.methods_of(*grant).next().is_none(),
                "{grant} is not gone"
            );
            let is_live = !asked.is_deleted && !asked.window.is_over(self.now);
            for (place, declined) in asked.places.iter().filter(|_| is_live) {
                for device in asked.devices.iter().filter(|device| !declined.contains(device)) {
                    let here: Vec<_> = own
                        .iter()
                        .filter(|(_, method)| method.place == *place && method.devices.contains(device))
                        .collect();
                    let [(id, method)] = here.as_slice() else {
                        panic!("{grant} {place} has {} codes for {device}", here.len());
                    };
                    let pin = method.pin.expose();
                    assert!(
                        pin::suits(self.book.devices[device].pins.as_ref().unwrap(), pin),
                        "{pin} at {device}"
                    );
                    wanted.entry(*device).or_default().insert(*id, (pin.to_owned(), asked.window));
                }
            }
        }
        for (which, keypad) in &self.keypads {
            let wanted = wanted.remove(which).unwrap_or_default();
            let mut pins = BTreeSet::new();
            for (id, (pin, window)) in &wanted {
                let slot = &self.book.slots[&(*which, *id)];
                let (text, desired) = slot.desired.content.as_ref().expect("it is desired");
                assert_eq!((digits(text), desired), (pin.as_str(), window));
                if window.starts_at() - LEAD > self.now {
                    assert!(slot.work.under_way.is_some() && !keypad.table.contains_key(id), "{id} waits");
                    continue;
                }
                assert!(slot.is_settled(), "{id} at {which}: desired and observed differ: {slot:?}");
                let entry = &keypad.table[id];
                assert_eq!(
                    (&entry.pin, &entry.window, entry.generation),
                    (pin, window, slot.desired.generation)
                );
                assert!(pins.insert(pin), "{pin} twice at {which}");
                let shown = self.zone.to_datetime(self.now);
                let is_within = entry.starts_at <= shown && entry.ends_at.is_none_or(|end| shown < end);
                assert!(
                    is_within || window.starts_at() > self.now,
                    "{id} does not open at {shown}: {entry:?}"
                );
            }
            for id in keypad.table.keys() {
                let known = (self.book.methods.get(id), self.book.slots.get(&(*which, *id)));
                assert!(wanted.contains_key(id), "{id} is in {which} and should not be: {known:?}");
            }
        }
        let nothing_left = self.book.slots.values().all(|slot| !slot.is_done_with());
        assert!(nothing_left, "a slot that is over is still in the book");
        for grant in self.book.grants.values().filter(|grant| grant.deleted_at.is_none()) {
            // Only where it leads to no device at all.
            let lacks = !grant.requests.is_empty() && grant.devices.is_empty();
            let is_told = grant.lacks().next().is_some();
            assert!(grant.window.is_over(self.now) || is_told == lacks, "{:?}", grant.requests);
        }
        for (id, method) in &self.book.methods {
            let comes_later = self.book.grants[&method.grant].window.starts_at() - LEAD > self.now;
            let is_live = !method.has_ended && !method.devices.is_empty() && !comes_later;
            assert!(!is_live || method.is_issued, "{id} is in every device and not issued");
            assert!(method.deleted_at.is_none(), "{id} is still being deleted");
            assert_eq!(self.book.still_there(*id), [], "{id} is nowhere, and listed");
        }
    }
}

/// A PIN's digits: no cards are asked for here.
fn digits(content: &SlotContent) -> &str {
    match content {
        SlotContent::Pin(pin) => pin.expose(),
        SlotContent::CardNumber(_) => panic!("a card"),
    }
}

impl Keypad {
    fn perform(&mut self, order: &SlotOrder, zone: &TimeZone, now: Timestamp) -> Told {
        match &order.action {
            Action::Put { generation, what, window, .. } => {
                let pin = digits(what);
                let other = self.table.iter().find(|(key, entry)| **key != order.method && entry.pin == pin);
                // What should have gone long ago, and could not: the lock refuses, and another PIN is found.
                let is_left = other.is_some_and(|(_, entry)| entry.window.is_over(now));
                assert!(
                    other.is_none() || is_left,
                    "{pin} is put at {} although {other:?} has it",
                    order.device
                );
                if is_left || self.foreign.as_deref() == Some(pin) {
                    return Told::NotDone { code: Code::ContentTaken, message: String::new() };
                }
                let (starts_at, ends_at) = local(window, zone);
                let entry = Entry {
                    generation: *generation,
                    pin: pin.to_owned(),
                    starts_at,
                    ends_at,
                    window: *window,
                };
                self.table.insert(order.method, entry);
                self.timers.remove(&order.method);
                if let Some(until) = window.ends_at() {
                    self.timers.insert(order.method, until);
                }
            }
            _ => {
                self.table.remove(&order.method);
                self.timers.remove(&order.method);
            }
        }
        Told::Done
    }
}

/// As a lock keeps it: a start in an hour that comes twice is an hour early, an end in it an hour late.
fn local(window: &Window, zone: &TimeZone) -> (DateTime, Option<DateTime>) {
    let comes_twice = |at: Timestamp| zone.to_ambiguous_timestamp(zone.to_datetime(at)).is_ambiguous();
    let hour = SignedDuration::from_hours(1);
    let starts_at = window.starts_at();
    let early = if comes_twice(starts_at) { -hour } else { SignedDuration::ZERO };
    let late = |end| if comes_twice(end) { hour } else { SignedDuration::ZERO };
    (
        zone.to_datetime(starts_at).saturating_add(early),
        window.ends_at().map(|end| zone.to_datetime(end).saturating_add(late(end))),
    )
}

fn deed(order: &SlotOrder) -> Deed {
    match &order.action {
        Action::Put { generation, mark, window, .. } => {
            Deed::Put(Content { generation: *generation, mark: Some(*mark), until: window.ends_at() })
        }
        _ => Deed::Remove,
    }
}

fn due_at(order: &SlotOrder) -> Timestamp {
    match &order.action {
        Action::Put { window, .. } => window.starts_at() - LEAD,
        _ => Timestamp::MIN,
    }
}

fn is_over(order: &SlotOrder, now: Timestamp) -> bool {
    matches!(&order.action, Action::Put { window, .. } if window.is_over(now))
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step();
        }
        world.quiet();
        world.check_quiet();
    }));
    if let Err(panic) = outcome {
        let story = world.story.join("\n");
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("seed {seed}, now {}:\n{story}\n", world.now).as_bytes(),
        );
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn whatever_happens_it_ends_as_it_was_asked() {
    let cases = std::env::var("LATCHD_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let only = std::env::var("LATCHD_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    match only {
        Some(seed) => run(seed),
        None => (0..cases).for_each(run),
    }
}

/// A book of one grant, whose bridge says what the test tells it to.
struct Desk {
    book: Book,
    grant: AccessGrantId,
    now: Timestamp,
    random: Random,
    orders: Vec<SlotOrder>,
}

impl Desk {
    /// With so many locks that take four digits, all of which the grant leads to.
    fn new(locks: u64) -> Self {
        let mut book = Book::default();
        for n in 0..locks {
            let pins = Some(PinRules { lengths: vec![4], constraints: Vec::new() });
            book.devices.insert(
                device(n),
                Lock { pins, takes_cards: false, is_here: true, lead: LEAD, taken: Vec::new() },
            );
        }
        let (grant, now) = (AccessGrantId(uuid::Uuid::from_u128(7)), at("2026-11-22T12:00:00Z"));
        let own = CodeGrant {
            window: Window::new(now, Some(now + SignedDuration::from_hours(48))).unwrap(),
            deleted_at: None,
            deletion_told: false,
            devices: (0..locks).map(device).collect(),
            opened: BTreeSet::new(),
            doors_open: true,
            habits: Vec::new(),
            requests: BTreeMap::new(),
        };
        book.grants.insert(grant, own);
        Self { book, grant, now, random: Random::seeded(11), orders: Vec::new() }
    }

    /// Changes the book; every order goes to the bridge at once.
    fn change(&mut self, change: impl FnOnce(&mut Book, &Moment<'_>)) {
        let moment = Moment { now: self.now, random: &self.random, mark: &mark };
        change(&mut self.book, &moment);
        self.orders.extend(self.book.reconcile(&moment));
        for slot in self.book.slots.values_mut() {
            if let Some(way) = &mut slot.work.under_way {
                way.was_handed = true;
            }
        }
    }

    fn request(&mut self) {
        let grant = self.grant;
        self.change(|book, at| drop(book.request(at, grant, 0, None)));
    }

    fn leads_to(&mut self, locks: std::ops::Range<u64>) {
        let grant = self.grant;
        self.change(|book, at| book.retarget(at, grant, locks.map(device).collect()));
    }

    fn passes(&mut self, span: SignedDuration) {
        self.now += span;
        self.change(Book::clock);
    }

    fn next_order(&mut self) -> SlotOrder {
        assert!(!self.orders.is_empty(), "nothing is ordered: {:?}", self.book.slots);
        self.orders.remove(0)
    }

    fn ends(&mut self, order: &SlotOrder, told: Told) {
        self.change(|book, at| book.reported(at, order.device, order.method, order.job, deed(order), &told));
    }

    fn is_settled_late(&mut self, order: &SlotOrder, told: Told) {
        self.change(|book, at| book.resolved(at, order.device, order.method, order.job, deed(order), &told));
    }

    fn all_done(&mut self) {
        while !self.orders.is_empty() {
            let order = self.next_order();
            self.ends(&order, Told::Done);
        }
    }

    fn methods(&self) -> Vec<AccessMethodId> {
        self.book.methods_of(self.grant).map(|(id, _)| id).collect()
    }

    fn is_issued(&self) -> bool {
        self.book.methods_of(self.grant).all(|(_, method)| method.is_issued)
    }

    fn told(&mut self) -> Vec<&'static str> {
        let events = std::mem::take(&mut self.book.events);
        events.into_iter().map(|event| event.kind.split_once('.').unwrap().1).collect()
    }

    fn lack(&self) -> Option<BTreeSet<DeviceId>> {
        self.book.grants[&self.grant].lacks().next().map(|lack| lack.devices.clone())
    }
}

fn not_done(code: Code) -> Told {
    Told::NotDone { code, message: String::new() }
}

#[test]
fn a_code_that_no_device_takes_is_told_once_and_made_when_one_does() {
    let mut desk = Desk::new(1);
    let pins = desk.book.devices.get_mut(&device(0)).unwrap().pins.take();
    desk.request();
    desk.passes(SignedDuration::from_hours(1));
    desk.leads_to(0..1);
    assert_eq!((desk.methods(), desk.lack()), (Vec::new(), Some(BTreeSet::new())));
    assert_eq!(desk.told(), ["could_not_create_requested_access_methods"]);
    // It takes no length that people type: no better.
    let odd = PinRules { lengths: vec![12], constraints: Vec::new() };
    desk.book.devices.get_mut(&device(0)).unwrap().pins = Some(odd);
    desk.leads_to(0..1);
    assert_eq!((desk.methods(), desk.lack()), (Vec::new(), Some(BTreeSet::new())));
    desk.book.devices.get_mut(&device(0)).unwrap().pins = pins;
    desk.leads_to(0..1);
    assert_eq!(desk.lack(), None);
    desk.all_done();
    assert!(desk.methods().len() == 1 && desk.is_issued());
}

#[test]
fn a_device_with_no_pin_left_is_named_and_gets_one_as_soon_as_there_is_one() {
    let mut desk = Desk::new(2);
    let always = Window::new(Timestamp::UNIX_EPOCH, None).unwrap();
    let all = (0..10_000).map(|pin| (mark(&format!("{pin:04}")), always)).collect();
    desk.book.devices.get_mut(&device(1)).unwrap().taken = all;
    desk.request();
    assert_eq!(desk.lack(), Some(BTreeSet::from([device(1)])));
    let told = desk.book.events.iter().find(|event| event.message.is_some()).unwrap();
    assert_eq!(told.missing_devices, [device(1)]);
    desk.all_done();
    assert!(desk.is_issued(), "the other device has its own");
    let again = desk.book.due(desk.now).unwrap();
    assert!(again <= desk.now + SignedDuration::from_mins(30), "{again}");
    desk.book.devices.get_mut(&device(1)).unwrap().taken.clear();
    desk.passes(again.duration_since(desk.now));
    assert_eq!(desk.lack(), None);
    let has_it = |method| desk.book.methods[method].devices.contains(&device(1));
    assert!(desk.methods().iter().any(has_it));
}

#[test]
fn a_code_that_was_taken_back_is_not_made_again() {
    let mut desk = Desk::new(2);
    // Nothing that both take.
    desk.book.devices.get_mut(&device(1)).unwrap().pins =
        Some(PinRules { lengths: vec![6], constraints: Vec::new() });
    desk.request();
    let [first, second] = desk.methods()[..] else { panic!("{:?}", desk.methods()) };
    let gone = if desk.book.methods[&first].devices == [device(1)] { first } else { second };
    desk.all_done();
    desk.change(|book, at| book.delete_method(at, gone));
    desk.all_done();
    for _ in 0..3 {
        desk.passes(SignedDuration::from_mins(31));
        desk.leads_to(0..2);
    }
    assert!(desk.methods().len() == 1 && desk.lack().is_none());
    let kept = desk.methods()[0];
    assert_eq!(desk.book.methods[&kept].devices, [device(0)]);
    desk.change(|book, at| book.delete_method(at, kept));
    desk.all_done();
    desk.leads_to(0..2);
    assert_eq!((desk.methods(), desk.lack()), (Vec::new(), None));
}

#[test]
fn a_device_that_joins_later_does_not_take_a_code_back_that_works_elsewhere() {
    let mut desk = Desk::new(2);
    desk.leads_to(0..1);
    desk.request();
    desk.all_done();
    desk.told();
    desk.leads_to(0..2);
    desk.passes(SignedDuration::from_hours(1));
    assert!(desk.is_issued() && desk.told().is_empty(), "it goes on opening the other device");
    let coming = desk.next_order();
    assert_eq!(coming.device, device(1));
    desk.ends(&coming, Told::Done);
    assert_eq!(desk.told(), ["access_granted_to_all_doors"]);
    // From now on it is handed out for both.
    let method = desk.methods()[0];
    desk.change(|book, at| book.emptied(at, device(1), method));
    assert_eq!((desk.is_issued(), desk.told()), (false, vec!["revoked"]));
}

#[test]
fn a_code_whose_only_device_is_exchanged_is_issued_anew() {
    let mut desk = Desk::new(2);
    desk.leads_to(0..1);
    desk.request();
    desk.all_done();
    desk.told();
    desk.leads_to(1..2);
    assert_eq!((desk.is_issued(), desk.told()), (false, vec!["revoked"]));
    desk.all_done();
    assert_eq!(desk.told(), ["reissued", "access_granted_to_all_doors"]);
}

#[test]
fn a_late_word_about_an_old_job_changes_nothing_that_is_known_since() {
    let mut desk = Desk::new(1);
    desk.request();
    let old = desk.next_order();
    desk.ends(&old, Told::Doubt);
    let grant = desk.grant;
    let window = Window::new(desk.now, Some(desk.now + SignedDuration::from_hours(9))).unwrap();
    desk.change(|book, at| book.retime(at, grant, window));
    desk.all_done();
    assert!(desk.is_issued());
    let known = desk.book.slots.clone();
    desk.is_settled_late(&old, Told::Done);
    assert!(desk.is_issued() && desk.book.slots == known);

    // And what a reading showed.
    let (mut desk, nothing) = (Desk::new(1), []);
    desk.request();
    let old = desk.next_order();
    desk.ends(&old, Told::Doubt);
    desk.change(|book, at| book.read(at, device(0), &nothing));
    desk.is_settled_late(&old, Told::Done);
    assert!(!desk.is_issued(), "it was seen to be empty");
}

#[test]
fn one_doubt_that_is_settled_does_not_settle_another() {
    let mut desk = Desk::new(1);
    desk.request();
    let first = desk.next_order();
    desk.ends(&first, Told::Doubt);
    desk.passes(SignedDuration::from_mins(1));
    let second = desk.next_order();
    desk.ends(&second, Told::Doubt);
    desk.is_settled_late(&second, not_done(Code::Rejected));
    assert!(!desk.is_issued(), "nobody knows what became of the first");
    let slot = (device(0), first.method);
    assert!(desk.book.slots[&slot].may_hold());
    desk.is_settled_late(&first, Told::Done);
    assert!(desk.is_issued());

    let mut desk = Desk::new(1);
    desk.request();
    let first = desk.next_order();
    desk.ends(&first, Told::Doubt);
    desk.passes(SignedDuration::from_mins(1));
    let second = desk.next_order();
    desk.ends(&second, Told::Doubt);
    desk.is_settled_late(&first, not_done(Code::Rejected));
    desk.is_settled_late(&second, not_done(Code::Rejected));
    assert!(desk.book.slots[&(device(0), first.method)].observed.contents().next().is_none());
    assert!(!desk.is_issued());
}

/// A lock that never says how an order ended is ordered anew for ever; what is known of it does not grow for ever.
#[test]
fn of_a_slot_that_is_in_doubt_for_days_the_newest_doubts_and_what_is_certain_are_kept() {
    let mut desk = Desk::new(1);
    desk.request();
    let first = desk.next_order();
    desk.ends(&first, Told::Done);
    let (grant, slot) = (desk.grant, (device(0), first.method));
    let certain = desk.book.slots[&slot].observed.holds;
    let window = Window::new(desk.now, Some(desk.now + SignedDuration::from_hours(72))).unwrap();
    desk.change(|book, at| book.retime(at, grant, window));
    let mut doubtful = Vec::new();
    while doubtful.len() < MOST_DOUBTS + 5 {
        let order = desk.next_order();
        desk.ends(&order, Told::Doubt);
        doubtful.push(order);
        desk.passes(SignedDuration::from_mins(31));
    }
    let observed = |desk: &Desk| desk.book.slots[&slot].observed.clone();
    let kept: Vec<_> = observed(&desk).doubts.iter().map(|doubt| doubt.job).collect();
    let newest: Vec<_> = doubtful[5..].iter().map(|order| order.job).collect();
    assert_eq!((kept, observed(&desk).holds), (newest, certain));
    // That the kept ones were not done says nothing of those that are forgotten.
    for order in &doubtful {
        desk.is_settled_late(order, not_done(Code::Rejected));
    }
    assert!(!desk.is_issued() && !observed(&desk).doubts.is_empty());
    desk.change(|book, at| book.delete_grant(at, grant));
    assert!(desk.book.methods.contains_key(&slot.1), "the code may be there, and is shown");
    // What is known to be done is all there is.
    while !desk.orders.is_empty() {
        desk.all_done();
    }
    assert!(desk.book.slots.is_empty() && desk.methods().is_empty());
}

#[test]
fn a_deleted_grant_that_lacked_a_code_is_not_looked_at_again() {
    let mut desk = Desk::new(1);
    let always = Window::new(Timestamp::UNIX_EPOCH, None).unwrap();
    let all = (0..10_000).map(|pin| (mark(&format!("{pin:04}")), always)).collect();
    desk.book.devices.get_mut(&device(0)).unwrap().taken = all;
    desk.request();
    assert!(desk.book.due(desk.now).is_some() && desk.lack().is_some());
    let grant = desk.grant;
    desk.change(|book, at| book.delete_grant(at, grant));
    assert_eq!(desk.book.due(desk.now), None);
}

#[test]
fn what_is_over_leaves_no_slot_behind() {
    let mut desk = Desk::new(2);
    desk.request();
    desk.all_done();
    desk.passes(SignedDuration::from_hours(49));
    desk.all_done();
    assert_eq!((desk.methods().len(), desk.book.slots.len()), (1, 0));
    assert!(desk.is_issued(), "what was handed out was handed out");
    // It may begin anew.
    let (grant, window) = (desk.grant, Window::new(desk.now, None).unwrap());
    desk.change(|book, at| book.retime(at, grant, window));
    desk.all_done();
    assert!(desk.is_issued() && desk.book.slots.len() == 2);
}

/// Oslo: 25 October 2026 has 02:00 to 03:00 twice (00:00Z to 02:00Z), 28 March 2027 does not have it (from 01:00Z).
#[test]
fn a_code_opens_all_its_window_and_nothing_of_the_day_after_whatever_clocks_are_set_in_it() {
    for (from, to) in [
        // Into the first hour, out of the second, and both within one of them.
        ("2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-24T22:00:00Z", "2026-10-25T01:30:00Z"),
        ("2026-10-25T00:10:00Z", "2026-10-25T00:40:00Z"),
        ("2026-10-25T01:10:00Z", "2026-10-25T01:40:00Z"),
        ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        // At the very instants.
        ("2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        ("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        ("2026-10-25T01:59:59Z", "2026-10-26T01:00:00Z"),
        // Over the hour that is not there, to its edge, and from it.
        ("2027-03-28T00:30:00Z", "2027-03-28T01:30:00Z"),
        ("2027-03-28T00:00:00Z", "2027-03-28T01:00:00Z"),
        ("2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z"),
        ("2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z"),
    ] {
        let mut world = World::new(1);
        let window = Window::new(at(from), Some(at(to))).unwrap();
        world.now = at(from) - SignedDuration::from_hours(2);
        world.is_quiet = true;
        let grant = world.grant(window, vec![device(1)], None);
        world.exchange();
        let tick = SignedDuration::from_mins(5);
        while world.now < at(to) + tick {
            let shown = world.zone.to_datetime(world.now);
            let entry = world.keypads[&device(1)].table.values().next();
            let opens = entry
                .is_some_and(|entry| entry.starts_at <= shown && entry.ends_at.is_none_or(|end| shown < end));
            let is_within = at(from) <= world.now && world.now < at(to);
            assert!(opens || !is_within, "{from} to {to}: {} ({shown}) {entry:?}", world.now);
            assert!(entry.is_none() || world.now < at(to), "{from} to {to}: still there at {}", world.now);
            let next = [at(from), at(to)].into_iter().filter(|edge| *edge > world.now).min();
            world.pass(next.map_or(tick, |edge| tick.min(edge.duration_since(world.now))));
            world.check();
        }
        let (_, method) = world.book.methods_of(grant).next().unwrap();
        assert!(method.is_issued && method.has_ended, "{from} to {to}: {method:?}");
        let late = world
            .events
            .iter()
            .any(|event| event.kind.ends_with("_issue") || event.kind.ends_with("_issuing"));
        assert!(!late, "{:?}", world.events);
    }
}

/// A desk whose first lock takes only what its maker computed, and what was computed for it.
fn with_a_computed_code() -> (Desk, Private) {
    let mut desk = Desk::new(3);
    for n in [0, 1] {
        let pins = desk.book.devices.get_mut(&device(n)).unwrap().pins.as_mut().unwrap();
        pins.constraints.push(PinConstraint::ComputedByMaker);
    }
    let grant = desk.grant;
    desk.book.grants.get_mut(&grant).unwrap().devices = vec![device(0), device(2)];
    let given = Private::new("8305");
    let wish = given.clone();
    desk.change(|book, at| drop(book.request(at, grant, 0, Some(&wish))));
    (desk, given)
}

#[test]
fn a_lock_whose_codes_its_maker_computes_is_given_what_was_asked_for_and_nothing_else() {
    let mut desk = Desk::new(2);
    let pins = desk.book.devices.get_mut(&device(0)).unwrap().pins.as_mut().unwrap();
    pins.constraints.push(PinConstraint::ComputedByMaker);
    let grant = desk.grant;
    desk.book.grants.get_mut(&grant).unwrap().habits = vec![Private::new("2745")];
    desk.request();
    assert!(desk.orders.iter().all(|order| order.device == device(1)), "{:?}", desk.orders);
    assert_eq!(
        desk.lack(),
        Some(BTreeSet::from([device(0)])),
        "no code is made up for it, and no habit is tried"
    );

    let (mut desk, given) = with_a_computed_code();
    assert_eq!((desk.methods().len(), desk.orders.len(), desk.lack()), (1, 2, None));
    for order in &desk.orders {
        assert!(
            matches!(&order.action, Action::Put { what, .. } if *what == SlotContent::Pin(given.clone())),
            "{order:?}"
        );
    }
    desk.all_done();
    assert!(desk.is_issued());
    // What was computed for one lock opens no other one of them.
    desk.leads_to(0..3);
    assert_eq!((desk.orders.len(), desk.lack()), (0, Some(BTreeSet::from([device(1)]))));
}

#[test]
fn a_computed_code_is_there_until_its_end_whatever_is_asked_for_and_is_told_to_be() {
    let (mut desk, _) = with_a_computed_code();
    desk.all_done();
    let (grant, method) = (desk.grant, desk.methods()[0]);
    desk.told();
    desk.change(|book, at| book.delete_grant(at, grant));
    let removed: Vec<_> = desk.orders.iter().map(|order| (order.device, order.action.clone())).collect();
    assert_eq!(removed, [(device(2), Action::Remove)], "nobody can take away the other one");
    desk.all_done();
    desk.passes(SignedDuration::from_hours(47));
    assert_eq!((desk.orders.len(), desk.told().len()), (0, 0));
    let there: Vec<_> = desk.book.still_there(method).into_iter().map(|(device, _)| device).collect();
    assert_eq!(there, [device(0)]);
    let end = desk.book.due(desk.now).unwrap();
    assert_eq!(end, desk.now + SignedDuration::from_hours(1));
    desk.passes(SignedDuration::from_hours(1));
    desk.all_done();
    assert_eq!(desk.told(), ["deleted", "deleted"]);
    assert!(desk.book.slots.is_empty());
}

#[test]
fn a_computed_code_is_never_given_out_for_other_times() {
    let (mut desk, given) = with_a_computed_code();
    desk.all_done();
    let grant = desk.grant;
    let later = Window::new(desk.now, Some(desk.now + SignedDuration::from_hours(96))).unwrap();
    desk.change(|book, at| book.retime(at, grant, later));
    for _ in 0..200 {
        for order in std::mem::take(&mut desk.orders) {
            let put = match &order.action {
                Action::Put { what, window, .. } => Some((digits(what).to_owned(), *window)),
                Action::Remove | Action::Withdraw => None,
            };
            assert!(order.device == device(2) || put.is_none(), "{order:?}");
            assert!(
                put.is_none_or(|put| put == (given.expose().to_owned(), later)),
                "the other one keeps its code"
            );
            desk.ends(&order, Told::Done);
        }
        desk.passes(SignedDuration::from_mins(20));
    }
    assert_eq!(desk.lack(), Some(BTreeSet::from([device(0)])), "somebody is told that it needs a new one");
}
