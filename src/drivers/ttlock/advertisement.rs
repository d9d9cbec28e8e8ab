//! What a lock shows to whoever listens.

use std::collections::HashMap;

/// A lock's own words about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// The protocol and its branch: 5 and 3 for the locks that this driver knows.
    pub version: (u8, u8),
    /// Which kind of lock.
    pub scene: u8,
    /// What it says of its state; none of an older lock.
    pub flags: Option<Flags>,
    /// Of its battery, in per cent; none where it does not know.
    pub battery: Option<u8>,
    /// Its address, as people write it.
    pub address: [u8; 6],
}

/// The bits of a lock's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The door is not locked.
    #[must_use]
    pub fn is_unlocked(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// It remembers something that nobody has read.
    #[must_use]
    pub fn has_news(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// It belongs to nobody and waits to be paired.
    #[must_use]
    pub fn waits_to_be_paired(self) -> bool {
        self.0 & 0x04 != 0
    }
}

/// Reads a lock's manufacturer data. The vendor writes data where other makers put their number; `company` is what stands
/// there. None where it is no lock, or one that is having its firmware replaced.
#[must_use]
pub fn read(company: u16, data: &[u8]) -> Option<Advertisement> {
    let mut bytes = company.to_le_bytes().to_vec();
    bytes.extend_from_slice(data.get(..data.len().min(64))?);
    if bytes.len() < 15 || matches!(bytes[..2], [0x12, 0x19] | [0xFF, 0xFF]) {
        return None;
    }
    let (version, scene, flags, battery) = match bytes[..2] {
        [5, 3] => ((5, 3), bytes[2], bytes[3], bytes[4]),
        _ => ((bytes[4], bytes[5]), bytes[7], bytes[8], bytes[9]),
    };
    let has_flags = 5 <= version.0 && version != (5, 1);
    let mut address: [u8; 6] = *bytes.last_chunk()?;
    address.reverse();
    Some(Advertisement {
        version,
        scene,
        flags: has_flags.then_some(Flags(flags)),
        battery: (battery <= 100).then_some(battery),
        address,
    })
}

/// Reads what BlueZ holds of a peripheral: entries of former advertisements stay among it, so the one with the
/// peripheral's own address counts, and any other only without such a one.
#[must_use]
pub fn read_all<S: std::hash::BuildHasher>(
    held: &HashMap<u16, Vec<u8>, S>,
    address: [u8; 6],
) -> Option<Advertisement> {
    let read = || held.iter().filter_map(|(company, data)| read(*company, data));
    read().find(|shown| shown.address == address).or_else(|| read().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_entries_the_one_with_the_address_counts() {
        let entry = |flags: u8, last: u8| {
            let mut data = vec![7, flags, 87, 0, 0, 0, 0];
            data.extend([last, 2, 3, 4, 5, 6]);
            data
        };
        let held = HashMap::from([(0x0305, entry(4, 1)), (0x4242, entry(0, 9)), (0x004C, vec![1])]);
        let shown = read_all(&held, [6, 5, 4, 3, 2, 1]).unwrap();
        assert_eq!((shown.address, shown.flags.unwrap().waits_to_be_paired()), ([6, 5, 4, 3, 2, 1], true));
    }

    #[test]
    fn an_older_lock_shows_its_fields_elsewhere_and_no_flags() {
        let shown = read(0x0201, &[0, 0, 3, 0, 0, 2, 7, 101, 0, 1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!((shown.version, shown.scene, shown.flags, shown.battery), ((3, 0), 2, None, None));
    }

    #[test]
    fn firmware_being_replaced_and_strangers_are_no_locks() {
        assert_eq!(read(0x1912, &[0; 20]), None);
        assert_eq!(read(0xFFFF, &[0; 20]), None);
        assert_eq!(read(0x0305, &[0; 12]), None);
    }
}
