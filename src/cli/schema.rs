//! `latchd schema`

use super::print_json;

pub(super) fn run() -> anyhow::Result<()> {
    print_json(&crate::protocol::schema::schema())
}
