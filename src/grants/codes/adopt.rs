//! Codes that a desk gave out by itself.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::model::{AccessGrantId, AccessMethodId, DeviceId, Private};

use super::{Book, CodeMethod, CodeRequest, Content, Moment};

/// A code as a desk gave it out: its guest may know the PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenOut {
    /// Its id, and the key of its slots.
    pub method: AccessMethodId,
    /// The PIN.
    pub pin: Private,
    /// Where.
    pub devices: Vec<DeviceId>,
}

impl Book {
    /// Takes over codes that a desk gave out for a grant, as they are. What the desk ordered of them is ordered once more: it
    /// changes nothing in a device that holds it. Gives the devices where a PIN is promised to somebody else as well; the
    /// device decides who has it there, and the other is given another one.
    pub fn adopt(
        &mut self,
        at: &Moment<'_>,
        grant: AccessGrantId,
        place: u32,
        made_at: Timestamp,
        codes: Vec<GivenOut>,
    ) -> BTreeSet<DeviceId> {
        let Some(own) = self.grants.get_mut(&grant) else { return BTreeSet::new() };
        let wish = codes.first().map(|code| code.pin.clone());
        own.requests.insert(place, CodeRequest { wish, ..CodeRequest::default() });
        let window = own.window;
        let mut clashing = BTreeSet::new();
        for GivenOut { method, pin, devices } in codes {
            let clash = |device: &&DeviceId| !self.is_free(at, **device, pin.expose(), &window, Some(method));
            clashing.extend(devices.iter().filter(clash).copied());
            let code = CodeMethod {
                wish: Some(pin.clone()),
                ..CodeMethod::new(at.now, grant, place, pin.clone(), devices.clone())
            };
            self.insert(at.now, method, code);
            // Until it is known better, it is there. The clock of the desk may be ahead of this one.
            let generation = u64::try_from(made_at.as_millisecond()).unwrap_or(0);
            let put = Content { generation, mark: Some((at.mark)(pin.expose())), until: window.ends_at() };
            for device in devices {
                if let Some(slot) = self.slots.get_mut(&(device, method)) {
                    slot.outgrow(at.now, generation);
                    slot.observed.hold(at.now, put);
                }
            }
        }
        if window.is_over(at.now) {
            let methods: Vec<_> = self.methods_of(grant).map(|(id, _)| id).collect();
            methods.into_iter().for_each(|method| self.end(at.now, method));
        }
        clashing
    }
}
