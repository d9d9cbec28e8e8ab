//! Where a grant leads, and by which means.

use crate::model::{
    AcsEntranceId, AcsSystemId, Capabilities, DoorKind, DoorName, ReservationKey, SystemName, Window,
};

use super::Refused;

/// How a person gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A PIN.
    Code,
    /// A plastic card.
    Card,
    /// A key on a phone.
    MobileKey,
    /// A door opened from afar.
    CloudKey,
}

impl Mode {
    /// The names, in the order of the type.
    pub const NAMES: &'static [&'static str] = &["code", "card", "mobile_key", "cloud_key"];
    const ALL: [Self; 4] = [Self::Code, Self::Card, Self::MobileKey, Self::CloudKey];

    /// The name in requests, answers and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Card => "card",
            Self::MobileKey => "mobile_key",
            Self::CloudKey => "cloud_key",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// What people call it.
    #[must_use]
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Code => "PIN Code",
            Self::Card => "Plastic Card",
            Self::MobileKey => "Mobile Key",
            Self::CloudKey => "Cloud Key",
        }
    }
}

/// An access system that a grant leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSystem {
    /// Its id.
    pub id: AcsSystemId,
    /// Its name at its site.
    pub name: SystemName,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether the site lets the last grant's end free the room.
    pub checkout_on_last_grant: bool,
    /// Whether the site wants the next card of a stay to begin it anew after one of its cards was deleted.
    pub override_after_deleted_card: bool,
}

/// A door that a grant leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDoor {
    /// Its id.
    pub id: AcsEntranceId,
    /// Its system.
    pub system: AcsSystemId,
    /// Its name in its system.
    pub name: DoorName,
    /// Whether it follows reservations.
    pub kind: DoorKind,
}

/// Everything a grant leads to: doors in the order of the request, spaces expanded, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Targets {
    /// The systems of the doors, in the order of their first door.
    pub systems: Vec<TargetSystem>,
    /// The doors.
    pub doors: Vec<TargetDoor>,
}

impl Targets {
    /// The doors that follow reservations.
    pub fn rooms(&self) -> impl Iterator<Item = &TargetDoor> {
        self.doors.iter().filter(|door| door.kind == DoorKind::Room)
    }

    /// The doors of one system, rooms first: the first room is a card's main one.
    #[must_use]
    pub fn doors_of(&self, system: AcsSystemId) -> Vec<&TargetDoor> {
        in_card_order(&self.doors, system)
    }

    /// Why one card of a system cannot be what the grant says, if so.
    ///
    /// # Errors
    /// The first reason.
    pub fn check_card(
        &self,
        system: &TargetSystem,
        ends: &Window,
        reservation_key: Option<&ReservationKey>,
    ) -> Result<(), Refused> {
        let doors = self.doors_of(system.id);
        let rooms = doors.iter().filter(|door| door.kind == DoorKind::Room).count();
        if rooms > 0 && reservation_key.is_none() {
            return Err(Refused::ReservationKeyRequired);
        }
        if ends.ends_at().is_none() && system.capabilities.open_end.is_none() {
            return Err(Refused::EndRequired { system: system.name.clone() });
        }
        let too_many =
            |what, asked, most| Refused::TooManyDoors { system: system.name.clone(), what, asked, most };
        if rooms > usize::from(system.capabilities.max_rooms) {
            return Err(too_many("rooms", rooms, system.capabilities.max_rooms));
        }
        let common = doors.len() - rooms;
        if common > usize::from(system.capabilities.max_common) {
            return Err(too_many("common doors", common, system.capabilities.max_common));
        }
        Ok(())
    }
}

/// Of these doors, those of one system, rooms first.
pub(super) fn in_card_order(doors: &[TargetDoor], system: AcsSystemId) -> Vec<&TargetDoor> {
    let of_kind = |kind| doors.iter().filter(move |door| door.system == system && door.kind == kind);
    of_kind(DoorKind::Room).chain(of_kind(DoorKind::Common)).collect()
}

/// Something that is wrong with a grant, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantProblem {
    /// The stable name.
    pub code: &'static str,
    /// For a person.
    pub message: String,
}

impl GrantProblem {
    /// The code of what cannot be had of what was asked for.
    pub const CANNOT_CREATE: &'static str = "cannot_create_requested_access_methods";
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::ProofLevel;
    use jiff::Timestamp;
    use uuid::Uuid;

    /// Seconds after noon of some day.
    pub(in crate::grants) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_348_800 + second).unwrap()
    }

    fn number(text: &str) -> Uuid {
        let mut bytes = [0; 16];
        for (byte, letter) in bytes.iter_mut().zip(text.bytes()) {
            *byte = letter;
        }
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// The id of the door that [`property`] makes of this text.
    pub(in crate::grants) fn door(text: &str) -> AcsEntranceId {
        AcsEntranceId(number(text))
    }

    /// Doors by text: `101` is a room of `salto`, `+lobby` a common door, `other/7` a room of `other`. A card carries
    /// two rooms and two common doors, and needs an end.
    pub(in crate::grants) fn property(doors: &[&str]) -> Targets {
        let mut targets = Targets::default();
        for text in doors {
            let (system, name) = text.split_once('/').unwrap_or(("salto", text));
            let id = AcsSystemId(number(system));
            if !targets.systems.iter().any(|known| known.id == id) {
                targets.systems.push(TargetSystem {
                    id,
                    name: SystemName::new(system).unwrap(),
                    capabilities: capabilities(),
                    checkout_on_last_grant: system == "salto",
                    override_after_deleted_card: system == "salto",
                });
            }
            targets.doors.push(TargetDoor {
                id: door(text),
                system: id,
                name: DoorName::new(name).unwrap(),
                kind: if name.starts_with('+') { DoorKind::Common } else { DoorKind::Room },
            });
        }
        targets
    }

    fn capabilities() -> Capabilities {
        let proven = Some(ProofLevel::Vector);
        Capabilities {
            r#override: proven,
            join: proven,
            future_start: proven,
            checkout: proven,
            modify_stay: None,
            read_card: proven,
            open_end: None,
            slots: None,
            unlock: None,
            chip_numbers: None,
            max_rooms: 2,
            max_common: 2,
            answer_means_written: true,
            parallel_encoders: true,
        }
    }

    #[test]
    fn the_doors_of_a_card_begin_with_its_rooms() {
        let targets = property(&["+lobby", "101", "other/7", "102"]);
        let names: Vec<_> =
            targets.doors_of(targets.systems[0].id).iter().map(|door| door.name.as_str()).collect();
        assert_eq!(names, ["101", "102", "+lobby"]);
    }
}
