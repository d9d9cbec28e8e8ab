//! Commands: what should be in the slots from now on.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::model::{AccessGrantId, AccessMethodId, DeviceId, PinRules, Private, SlotContent, Window};

use super::{
    super::{Event, pin},
    Book, CodeMethod, CodeRequest, Key, Lack, Lock, Moment,
    reconcile::LONGEST_PAUSE,
};

/// What a removal may take beyond the end of a code before the same PIN is put for somebody else. The site empties a
/// slot at its end; a lock that cannot be reached just then is tried again, at the latest after the longest pause.
const REMOVAL_TAKES: SignedDuration = LONGEST_PAUSE;
/// Codes of one grant, each device of each method counted: ample for a person with a code on every lock of a large
/// property, and few enough that one report about one of them does not keep everybody waiting.
pub const MOST_SLOTS: usize = 1_000;

impl Book {
    /// A code is asked for: one PIN for all the devices of the grant where that can be, and more methods where it
    /// cannot. Says which methods were made; none where no device takes a code.
    pub fn request(
        &mut self,
        at: &Moment<'_>,
        grant: AccessGrantId,
        place: u32,
        wish: Option<&Private>,
    ) -> Vec<AccessMethodId> {
        let Some(own) = self.grants.get_mut(&grant) else {
            return Vec::new();
        };
        own.requests.insert(place, CodeRequest { wish: wish.cloned(), ..CodeRequest::default() });
        self.serve_place(at, grant, place);
        self.live_methods(grant).into_iter().filter(|id| self.methods[id].place == place).collect()
    }

    /// Gives every device of a grant the codes that are asked for there.
    pub(super) fn serve(&mut self, at: &Moment<'_>, grant: AccessGrantId) {
        let places: Vec<_> =
            self.grants.get(&grant).map(|own| own.requests.keys().copied().collect()).unwrap_or_default();
        for place in places {
            self.serve_place(at, grant, place);
        }
    }

    /// Gives a code to each device that has none for this request, can have one, and has not declined; and says
    /// what of the request cannot be had.
    fn serve_place(&mut self, at: &Moment<'_>, grant: AccessGrantId, place: u32) {
        let Some(own) = self.grants.get(&grant) else { return };
        let Some(request) = own.requests.get(&place) else { return };
        if own.deleted_at.is_some() || own.window.is_over(at.now) {
            return;
        }
        if request.key == Key::Card {
            return self.serve_card(at, grant, place);
        }
        let (window, wish) = (own.window, request.wish.clone());
        let of_place: Vec<_> =
            self.live_methods(grant).into_iter().filter(|id| self.methods[id].place == place).collect();
        let taken: usize = self.live_methods(grant).iter().map(|id| self.methods[id].devices.len()).sum();
        let mut new = self.unserved(grant, place);
        new.truncate(MOST_SLOTS.saturating_sub(taken));
        let mut left = Vec::new();
        for device in new {
            let fits = |id: &&AccessMethodId| {
                self.may_have(grant, place, device, &self.methods[*id].pin)
                    && self.is_free(at, device, self.methods[*id].pin.expose(), &window, Some(**id))
            };
            match of_place.iter().find(fits).copied() {
                Some(id) => self.join(at.now, id, device),
                None => left.push(device),
            }
        }
        self.place(at, grant, place, wish.as_ref(), left);
        self.note_lack(at.now, grant, place);
    }

    /// The devices of a grant that can have what this request is for and do not, without those that declined.
    pub(super) fn unserved(&self, grant: AccessGrantId, place: u32) -> Vec<DeviceId> {
        let Some(own) = self.grants.get(&grant) else { return Vec::new() };
        let Some(request) = own.requests.get(&place) else { return Vec::new() };
        let served: BTreeSet<_> = self
            .methods_of(grant)
            .filter(|(_, method)| method.place == place && method.deleted_at.is_none())
            .flat_map(|(_, method)| method.devices.iter().copied())
            .collect();
        let is_unserved = |device: &DeviceId| {
            !served.contains(device) && !request.declined.contains(device) && self.takes(*device, request.key)
        };
        own.devices.iter().copied().filter(is_unserved).collect()
    }

    /// Notes what of a request cannot be had; the feed is told when it becomes more.
    pub(super) fn note_lack(&mut self, now: Timestamp, grant: AccessGrantId, place: u32) {
        let devices: BTreeSet<_> = self.unserved(grant, place).into_iter().collect();
        let has_any = self.methods_of(grant).any(|(_, method)| {
            method.place == place && method.deleted_at.is_none() && !method.devices.is_empty()
        });
        let Some(own) = self.grants.get_mut(&grant) else { return };
        let Some(request) = own.requests.get_mut(&place) else { return };
        // Where nobody wants it any more, nothing is missing.
        let is_declined = own.devices.iter().any(|device| request.declined.contains(device));
        // A card may be one that another system writes, which has nothing to do with devices.
        let is_served = has_any || is_declined || request.key == Key::Card;
        if is_served && devices.is_empty() {
            request.lack = None;
            return;
        }
        let known = request.lack.take();
        let is_new = known.as_ref().is_none_or(|known| !devices.is_subset(&known.devices));
        let lack = Lack { since: known.map_or(now, |known| known.since), devices };
        let message = lack.message().to_owned();
        let missing = lack.devices.iter().copied().collect();
        request.lack = Some(lack);
        if is_new {
            self.events.push(Event::could_not_create(grant, message).for_devices(missing));
        }
    }

    /// Makes codes for devices that have none for this request yet.
    fn place(
        &mut self,
        at: &Moment<'_>,
        grant: AccessGrantId,
        place: u32,
        wish: Option<&Private>,
        mut left: Vec<DeviceId>,
    ) {
        let Some(own) = self.grants.get(&grant) else { return };
        let (window, habits) = (own.window, own.habits.clone());
        // As asked for, wherever that can be.
        if let Some(wish) = wish {
            let fits = |device: &DeviceId| self.is_free(at, *device, wish.expose(), &window, None);
            let (mut fitting, rest): (Vec<_>, Vec<_>) = left.iter().copied().partition(fits);
            left = rest;
            // What a maker computed, it computed for one lock.
            let mut computed = fitting.iter().copied().filter(|device| self.is_computed(*device));
            let first = computed.next().filter(|device| self.may_have(grant, place, *device, wish));
            fitting.retain(|device| !self.is_computed(*device) || Some(*device) == first);
            if !fitting.is_empty() {
                self.make(at, grant, place, wish.clone(), Some(wish.clone()), fitting);
            }
        }
        // Nobody here can make up a code for these.
        left.retain(|device| !self.is_computed(*device));
        // A PIN that the person knows already, where it does for all of them.
        let known = habits.into_iter().find(|habit| {
            let fits = |device: &DeviceId| self.is_free(at, *device, habit.expose(), &window, None);
            !left.is_empty() && left.iter().all(fits)
        });
        if let Some(known) = known.filter(|_| wish.is_none()) {
            self.make(at, grant, place, known, None, std::mem::take(&mut left));
        }
        while !left.is_empty() {
            let together = self.with_a_common_length(&left);
            left.retain(|device| !together.contains(device));
            if let Some(pin) = self.draw(at, &together, &window, None) {
                self.make(at, grant, place, pin, wish.cloned(), together);
                continue;
            }
            // What all of them have left may be nothing, and yet each may have something.
            for device in together {
                if let Some(pin) = self.draw(at, &[device], &window, None) {
                    self.make(at, grant, place, pin, wish.cloned(), vec![device]);
                }
            }
        }
    }

    fn make(
        &mut self,
        at: &Moment<'_>,
        grant: AccessGrantId,
        place: u32,
        pin: Private,
        wish: Option<Private>,
        devices: Vec<DeviceId>,
    ) {
        let id = AccessMethodId(at.random.uuid_at(at.now));
        self.insert(at.now, id, CodeMethod { wish, ..CodeMethod::new(at.now, grant, place, pin, devices) });
    }

    /// A code is there from now on, and wanted in all its devices.
    pub(super) fn insert(&mut self, now: Timestamp, id: AccessMethodId, code: CodeMethod) {
        self.events.push(Event::method("access_method.created", id, code.grant));
        self.methods.insert(id, code);
        self.want_all(now, id);
    }

    /// The times of a grant change; the PINs stay, but where they are another's in the new times.
    pub fn retime(&mut self, at: &Moment<'_>, grant: AccessGrantId, window: Window) {
        let Some(own) = self.grants.get_mut(&grant) else { return };
        let before = std::mem::replace(&mut own.window, window);
        if before == window {
            return;
        }
        for id in self.live_methods(grant) {
            let Some(method) = self.methods.get_mut(&id) else { continue };
            if !method.awaits_card() {
                method.updating_from = method.updating_from.or(Some(before));
            }
            method.has_ended = false;
            let place = method.place;
            self.part_from_computed(at, grant, id);
            let Some(method) = self.methods.get_mut(&id) else { continue };
            let devices = method.devices.clone();
            let is_forgotten = method.key == Key::Pin && method.pin.expose().is_empty();
            self.asked(at.now, id);
            self.revoke(id);
            // A PIN that was forgotten after the former end has a new one in its place, the same in all devices.
            if is_forgotten {
                let Some(pin) = self.draw_but(at, &devices, &window, Some(id), "") else {
                    for device in devices {
                        self.want(at.now, device, id, None);
                    }
                    self.note_lack(at.now, grant, place);
                    continue;
                };
                if let Some(method) = self.methods.get_mut(&id) {
                    method.pin = pin;
                }
            }
            self.want_all(at.now, id);
            for device in devices {
                let Some(SlotContent::Pin(pin)) = self.methods[&id].content() else { break };
                if !self.is_free(at, device, pin.expose(), &window, Some(id)) {
                    self.cannot_have(at, id, device);
                }
            }
        }
    }

    /// The times of a code change: a device whose maker computed the code for the former ones keeps it until its end, and
    /// nothing is known for the new ones.
    fn part_from_computed(&mut self, at: &Moment<'_>, grant: AccessGrantId, id: AccessMethodId) {
        let Some(method) = self.methods.get(&id) else { return };
        let is_computed = |device: &DeviceId| self.is_computed(*device);
        let (goes, stays): (Vec<_>, Vec<_>) = method.devices.iter().copied().partition(is_computed);
        if goes.is_empty() {
            return;
        }
        let place = method.place;
        for device in goes {
            self.want(at.now, device, id, None);
        }
        if let Some(method) = self.methods.get_mut(&id) {
            method.joining.retain(|device| stays.contains(device));
            method.devices = stays;
        }
        if let Some(request) = self.grants.get_mut(&grant).and_then(|own| own.requests.get_mut(&place)) {
            request.wish = None;
        }
        self.note_lack(at.now, grant, place);
    }

    /// The grant leads to other devices, or some of them came or went.
    pub fn retarget(&mut self, at: &Moment<'_>, grant: AccessGrantId, devices: Vec<DeviceId>) {
        let Some(own) = self.grants.get_mut(&grant) else { return };
        own.devices.clone_from(&devices);
        for id in self.live_methods(grant) {
            let Some(method) = self.methods.get(&id) else { continue };
            let stay = |device: &DeviceId| devices.contains(device) && self.takes(*device, method.key);
            let (stays, goes): (Vec<_>, Vec<_>) = method.devices.iter().copied().partition(stay);
            if goes.is_empty() {
                continue;
            }
            for device in goes {
                self.want(at.now, device, id, None);
            }
            if let Some(method) = self.methods.get_mut(&id) {
                method.joining.retain(|device| stays.contains(device));
                method.devices = stays;
            }
        }
        self.serve(at, grant);
        self.settle_grant(at, grant);
    }

    /// A code is taken back.
    pub fn delete_method(&mut self, at: &Moment<'_>, method: AccessMethodId) {
        let Some(own) = self.methods.get_mut(&method) else { return };
        if own.deleted_at.is_some() {
            return;
        }
        own.deleted_at = Some(at.now);
        let (grant, place, declined) = (own.grant, own.place, own.devices.clone());
        let others = self.live_methods(grant).into_iter().any(|id| self.methods[&id].place == place);
        if let Some(own) = self.grants.get_mut(&grant) {
            // Nobody who takes a code back wants the next look at the grant to make another one.
            if !others {
                match own.requests.get_mut(&place) {
                    Some(request) if request.key == Key::Card => request.is_closed = true,
                    _ => drop(own.requests.remove(&place)),
                }
            } else if let Some(request) = own.requests.get_mut(&place) {
                request.declined.extend(declined);
            }
        }
        let devices: Vec<_> = self.slots_of(method).map(|(device, _)| device).collect();
        for device in devices {
            self.want(at.now, device, method, None);
        }
        self.settle(at, method);
    }

    /// A grant is taken back with all its codes.
    pub fn delete_grant(&mut self, at: &Moment<'_>, grant: AccessGrantId) {
        let Some(own) = self.grants.get_mut(&grant) else { return };
        own.deleted_at = own.deleted_at.or(Some(at.now));
        let methods: Vec<_> = self.methods_of(grant).map(|(id, _)| id).collect();
        for method in methods {
            self.delete_method(at, method);
        }
        self.bury(grant);
    }

    /// Time has passed: what is over ends, and what is late says so.
    pub fn clock(&mut self, at: &Moment<'_>) {
        let ids: Vec<_> = self.methods.keys().copied().collect();
        for id in ids {
            let over = self.methods.get(&id).is_some_and(|method| {
                !method.has_ended
                    && method.deleted_at.is_none()
                    && self.grants.get(&method.grant).is_some_and(|grant| grant.window.is_over(at.now))
            });
            if over {
                self.end(at.now, id);
            }
            self.settle(at, id);
            self.judge_lateness(at.now, id);
        }
        let lacking: Vec<_> = self
            .grants
            .iter()
            .filter(|(_, own)| own.lacks().any(|lack| !lack.devices.is_empty()))
            .map(|(id, _)| *id)
            .collect();
        for grant in lacking {
            self.serve(at, grant);
        }
    }

    /// Its window is over: nothing should be in the devices any more. Whether it was handed out stays as it was.
    pub(super) fn end(&mut self, now: Timestamp, id: AccessMethodId) {
        let Some(method) = self.methods.get_mut(&id) else { return };
        method.has_ended = true;
        method.updating_from = None;
        for device in method.devices.clone() {
            self.want(now, device, id, None);
        }
    }

    /// A device cannot have the PIN of its method, because something else there has it: it gets another one.
    pub(super) fn cannot_have(&mut self, at: &Moment<'_>, id: AccessMethodId, device: DeviceId) {
        let Some(method) = self.methods.get(&id) else { return };
        let Some(grant) = self.grants.get(&method.grant) else { return };
        if method.key == Key::Card {
            // Another card has to be laid down, and nobody but a person can do that. It may be free by and by.
            return;
        }
        let (window, place, wish, of) = (grant.window, method.place, method.wish.clone(), method.grant);
        let refused = method.pin.clone();
        if method.devices == [device] {
            let drawn = self.draw_but(at, &[device], &window, Some(id), refused.expose());
            if let (Some(pin), Some(method)) = (drawn, self.methods.get_mut(&id)) {
                method.pin = pin;
                // A PIN of its own choice that was given up is as good as one that was wished for.
                self.revoke(id);
                self.want_all(at.now, id);
            }
            return;
        }
        let Some(method) = self.methods.get_mut(&id) else { return };
        method.devices.retain(|own| *own != device);
        method.joining.remove(&device);
        self.want(at.now, device, id, None);
        if let Some(pin) = self.draw_but(at, &[device], &window, None, refused.expose()) {
            self.make(at, of, place, pin, wish, vec![device]);
        }
        self.note_lack(at.now, of, place);
        self.settle(at, id);
    }

    pub(super) fn join(&mut self, now: Timestamp, id: AccessMethodId, device: DeviceId) {
        let Some(method) = self.methods.get_mut(&id) else { return };
        method.devices.push(device);
        if method.is_issued {
            method.joining.insert(device);
        }
        self.asked(now, id);
        let Some(method) = self.methods.get(&id) else { return };
        if !method.has_ended
            && let Some(grant) = self.grants.get(&method.grant)
            && let Some(content) = method.content()
        {
            let window = grant.window;
            self.want(now, device, id, Some((content, window)));
        }
    }

    pub(super) fn asked(&mut self, now: Timestamp, id: AccessMethodId) {
        if let Some(method) = self.methods.get_mut(&id) {
            method.asked_at = now;
            method.late_since = None;
            method.failed_since = None;
        }
    }

    /// Wants what the method is in all its devices, if that is known.
    pub(super) fn want_all(&mut self, now: Timestamp, id: AccessMethodId) {
        let Some(method) = self.methods.get(&id) else { return };
        let Some(grant) = self.grants.get(&method.grant) else { return };
        let Some(content) = method.content() else { return };
        let content = (content, grant.window);
        for device in method.devices.clone() {
            self.want(now, device, id, Some(content.clone()));
        }
    }

    fn want(
        &mut self,
        now: Timestamp,
        device: DeviceId,
        id: AccessMethodId,
        content: Option<(SlotContent, Window)>,
    ) {
        self.slots.entry((device, id)).or_default().want(now, content);
    }

    pub(super) fn live_methods(&self, grant: AccessGrantId) -> Vec<AccessMethodId> {
        self.methods_of(grant).filter(|(_, method)| method.deleted_at.is_none()).map(|(id, _)| id).collect()
    }

    fn takes(&self, device: DeviceId, key: Key) -> bool {
        self.devices.get(&device).is_some_and(|lock| {
            let can = match key {
                Key::Pin => lock.pins.as_ref().is_some_and(pin::can_be_given),
                Key::Card => lock.takes_cards,
            };
            lock.is_here && can
        })
    }

    /// Whether a device takes only what its maker computed.
    pub(super) fn is_computed(&self, device: DeviceId) -> bool {
        self.devices.get(&device).and_then(|lock| lock.pins.as_ref()).is_some_and(PinRules::are_computed)
    }

    /// Whether a device may have a PIN for a request: one that takes only what its maker computed has to be the one that
    /// the PIN was given for.
    fn may_have(&self, grant: AccessGrantId, place: u32, device: DeviceId, pin: &Private) -> bool {
        if !self.is_computed(device) {
            return true;
        }
        let request = self.grants.get(&grant).and_then(|own| own.requests.get(&place));
        let is_given = request.is_some_and(|request| request.wish.as_ref() == Some(pin));
        let is_anothers =
            self.methods_of(grant).filter(|(_, method)| method.place == place).any(|(id, _)| {
                self.slots_of(id).any(|(on, slot)| on != device && self.is_computed(on) && slot.may_be_used())
            });
        is_given && !is_anothers
    }

    /// Whether a PIN suits a device and nobody else has it there at any instant of the window.
    pub(super) fn is_free(
        &self,
        at: &Moment<'_>,
        device: DeviceId,
        text: &str,
        window: &Window,
        but: Option<AccessMethodId>,
    ) -> bool {
        let Some(lock) = self.devices.get(&device) else { return false };
        let Some(rules) = &lock.pins else { return false };
        let content = SlotContent::Pin(Private::new(text));
        pin::suits(rules, text) && self.is_untaken(at, device, &content, window, but)
    }

    /// Whether nobody else has this on a device at any instant of the window.
    pub(super) fn is_untaken(
        &self,
        at: &Moment<'_>,
        device: DeviceId,
        content: &SlotContent,
        window: &Window,
        but: Option<AccessMethodId>,
    ) -> bool {
        let Some(lock) = self.devices.get(&device) else { return false };
        let mark = at.mark_of(content);
        let window = presence(window, lock);
        let meets = |other: &Window| presence(other, lock).overlaps(&window);
        let elsewhere = lock.taken.iter().any(|(taken, other)| *taken == mark && meets(other));
        let here =
            self.slots.iter().filter(|((on, id), _)| *on == device && Some(*id) != but).any(|(_, slot)| {
                let wanted = slot.desired.content.as_ref();
                let is_wanted = wanted.is_some_and(|(other, times)| other == content && meets(times));
                // Until it is seen to be gone, it is there, whatever its window was.
                is_wanted
                    || slot
                        .observed
                        .contents()
                        .chain(slot.may_put())
                        .chain(slot.work.earlier.iter().map(|(_, content)| *content))
                        .any(|held| {
                            held.mark == Some(mark) && !(wanted.is_some() && is_apart(&held, &window, at.now))
                        })
            });
        !elsewhere && !here
    }

    /// A PIN for all these devices.
    fn draw(
        &self,
        at: &Moment<'_>,
        devices: &[DeviceId],
        window: &Window,
        but: Option<AccessMethodId>,
    ) -> Option<Private> {
        self.draw_but(at, devices, window, but, "")
    }

    fn draw_but(
        &self,
        at: &Moment<'_>,
        devices: &[DeviceId],
        window: &Window,
        but: Option<AccessMethodId>,
        never: &str,
    ) -> Option<Private> {
        let rules: Vec<&PinRules> =
            devices.iter().filter_map(|device| self.devices.get(device)?.pins.as_ref()).collect();
        let is_taken = |text: &str| {
            text == never || !devices.iter().all(|device| self.is_free(at, *device, text, window, but))
        };
        pin::draw(&rules, is_taken, at.random)
    }

    /// The first device, and as many of the others as share a length with all before them.
    fn with_a_common_length(&self, devices: &[DeviceId]) -> Vec<DeviceId> {
        let (mut together, mut rules) = (Vec::new(), Vec::new());
        for device in devices {
            let Some(own) = self.devices.get(device).and_then(|lock| lock.pins.as_ref()) else { continue };
            rules.push(own);
            if pin::lengths(&rules).is_empty() {
                rules.pop();
            } else {
                together.push(*device);
            }
        }
        together
    }
}

/// When a code may be in a device: a lock takes no PIN that another of its slots has, whatever their windows.
fn presence(window: &Window, lock: &Lock) -> Window {
    let early = lock.lead.saturating_add(REMOVAL_TAKES);
    let from = window.starts_at().saturating_sub(early).unwrap_or(Timestamp::MIN);
    Window::new(from, window.ends_at()).unwrap_or(*window)
}

/// Whether what is in a slot ends before a window begins, and its slot's agent takes it away by then.
fn is_apart(content: &super::Content, window: &Window, now: Timestamp) -> bool {
    content.until.is_some_and(|until| until <= window.starts_at() && now < until)
}
