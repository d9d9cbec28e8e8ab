//! Cards that devices know by the numbers of their chips.

use crate::model::{AccessGrantId, AccessMethodId, DeviceId, Private, SlotContent};

use super::{super::Event, Book, CodeMethod, CodeRequest, Key, MOST_SLOTS, Moment};

/// Why a card is not what a method asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotEnrolled {
    /// Nobody waits for it: the method or its grant is deleted or over.
    Gone,
    /// The method has a card already.
    Other,
    /// These devices know the card as somebody else's, or may.
    Taken(Vec<DeviceId>),
}

impl Book {
    /// A card is asked for: one for all the devices of the grant that know cards by number. Which one is known when it is
    /// laid on a reader, see [`Self::enrol`].
    pub fn request_card(&mut self, at: &Moment<'_>, grant: AccessGrantId, place: u32) {
        let Some(own) = self.grants.get_mut(&grant) else { return };
        own.requests.entry(place).or_insert_with(|| CodeRequest { key: Key::Card, ..CodeRequest::default() });
        self.serve_card(at, grant, place);
    }

    /// Gives each device that has none the card that is asked for.
    pub(super) fn serve_card(&mut self, at: &Moment<'_>, grant: AccessGrantId, place: u32) {
        let is_closed = |book: &Self| {
            book.grants
                .get(&grant)
                .and_then(|own| own.requests.get(&place))
                .is_none_or(|request| request.is_closed)
        };
        if is_closed(self) {
            return;
        }
        let live = self.live_methods(grant);
        let taken: usize = live.iter().map(|id| self.methods[id].devices.len()).sum();
        let mut new = self.unserved(grant, place);
        new.truncate(MOST_SLOTS.saturating_sub(taken));
        let of_place =
            live.into_iter().find(|id| self.methods[id].place == place && self.methods[id].key == Key::Card);
        match of_place {
            Some(id) => new.into_iter().for_each(|device| self.join(at.now, id, device)),
            None if new.is_empty() => {}
            None => {
                let id = AccessMethodId(at.random.uuid_at(at.now));
                let card = CodeMethod {
                    key: Key::Card,
                    ..CodeMethod::new(at.now, grant, place, Private::new(""), new)
                };
                self.insert(at.now, id, card);
                self.events.push(Event::method("access_method.card_encoding_required", id, grant));
            }
        }
        self.note_lack(at.now, grant, place);
    }

    /// A card was laid on a reader for a method; `number` is that of its chip, in hexadecimal. From now on it is wanted in
    /// all the method's devices.
    ///
    /// # Errors
    /// Why it is not the method's card. Nothing is changed then.
    pub fn enrol(
        &mut self,
        at: &Moment<'_>,
        id: AccessMethodId,
        number: &Private,
    ) -> Result<(), NotEnrolled> {
        let method = self.methods.get(&id).ok_or(NotEnrolled::Gone)?;
        let grant = self.grants.get(&method.grant).ok_or(NotEnrolled::Gone)?;
        let window = grant.window;
        if method.key != Key::Card
            || method.deleted_at.is_some()
            || grant.deleted_at.is_some()
            || window.is_over(at.now)
        {
            return Err(NotEnrolled::Gone);
        }
        if !method.awaits_card() {
            return if method.pin == *number { Ok(()) } else { Err(NotEnrolled::Other) };
        }
        let content = SlotContent::CardNumber(number.clone());
        let is_taken = |device: &DeviceId| !self.is_untaken(at, *device, &content, &window, Some(id));
        let taken: Vec<_> = method.devices.iter().copied().filter(is_taken).collect();
        if !taken.is_empty() {
            return Err(NotEnrolled::Taken(taken));
        }
        if let Some(method) = self.methods.get_mut(&id) {
            method.pin = number.clone();
        }
        self.asked(at.now, id);
        self.want_all(at.now, id);
        Ok(())
    }
}
