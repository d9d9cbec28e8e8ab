//! Cursors: where a list goes on, told to the client without telling anything.
//!
//! A cursor is the place of the last row under a keyed mask, and a tag over place, workspace, call and filters. The same
//! place gives the same cursor, which is how clients notice that they go in circles; places count the rows of all
//! workspaces, which is why nobody is to read them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use crate::model::WorkspaceId;

/// Bytes of the tag: it needs to tell other parameters, and what was made up, from what was given out.
const TAG: usize = 12;
/// Bytes of a place.
const PLACE: usize = 8;

/// Makes and reads cursors.
#[derive(Clone)]
pub(super) struct Cursors(hmac::Key);

impl Cursors {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The cursor of a place in the list that `query` of `path` gives to a workspace.
    pub(super) fn write(&self, workspace: WorkspaceId, path: &str, query: &str, place: i64) -> String {
        let tag = self.tag(workspace, path, query, place);
        let mut bytes = tag.to_vec();
        bytes.extend(self.masked(&tag, place.to_be_bytes()));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place, if it was given out for this list.
    pub(super) fn read(&self, workspace: WorkspaceId, path: &str, query: &str, cursor: &str) -> Option<i64> {
        let bytes: [u8; TAG + PLACE] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (tag, masked) = bytes.split_at(TAG);
        let place = i64::from_be_bytes(self.masked(tag, masked.try_into().ok()?));
        (self.tag(workspace, path, query, place) == *tag).then_some(place)
    }

    fn tag(&self, workspace: WorkspaceId, path: &str, query: &str, place: i64) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("tag {workspace} {place} {path}?{query}").as_bytes());
        let mut tag = [0; TAG];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG]);
        tag
    }

    fn masked(&self, tag: &[u8], mut place: [u8; PLACE]) -> [u8; PLACE] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"mask ");
        context.update(tag);
        for (byte, mask) in place.iter_mut().zip(context.sign().as_ref()) {
            *byte ^= mask;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_only_for_the_list_it_was_given_out_for() {
        let cursors = Cursors::new(&[7; 32]);
        let [ours, theirs] = [1, 2].map(|n| WorkspaceId(uuid::Uuid::from_u128(n)));
        for place in [0, 1, 500, i64::MAX] {
            let cursor = cursors.write(ours, "/devices/list", "limit=3", place);
            assert_eq!(cursor, cursors.write(ours, "/devices/list", "limit=3", place));
            assert_eq!(cursors.read(ours, "/devices/list", "limit=3", &cursor), Some(place));
            assert_eq!(cursors.read(ours, "/devices/list", "limit=4", &cursor), None);
            assert_eq!(cursors.read(ours, "/spaces/list", "limit=3", &cursor), None);
            assert_eq!(cursors.read(theirs, "/devices/list", "limit=3", &cursor), None);
            assert_eq!(Cursors::new(&[8; 32]).read(ours, "/devices/list", "limit=3", &cursor), None);
        }
    }

    #[test]
    fn what_was_made_up_is_no_cursor() {
        let cursors = Cursors::new(&[7; 32]);
        let workspace = WorkspaceId(uuid::Uuid::nil());
        for made_up in ["", "MQ==", "1", "12.abcdef", &"A".repeat(27), &"A".repeat(4000), "é"] {
            assert_eq!(cursors.read(workspace, "/devices/list", "", made_up), None, "{made_up}");
        }
    }
}
