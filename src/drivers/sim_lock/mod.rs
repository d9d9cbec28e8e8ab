//! The pretend keypad lock of `latchd sim lock`, and its driver: the device on which the engine is proven.
//!
//! No such lock is sold. The protocol is ours; it has the traits that keypad locks of the field have: a table of slots,
//! windows in the lock's local time, a clock of its own, a ledger with sequence numbers, busy answers, a table that is
//! full, PINs refused because another slot has them, and nothing that undoes a command.
//!
//! # The line
//! TCP, one connection at a time: **a new connection ends the one before it**. A request at work is finished first, and
//! what was not begun of the old connection is thrown away; so the first answer on a new connection means that nothing
//! sent before is still to come. The lock hangs up after a minute of silence. Frames are those of [`codec`].
//!
//! # Requests and answers
//! ```text
//! request = number verb job …          number: 1 to 65535, counted per connection
//! answer  = number OK …                job:    the id of the job it is done for, or -
//!         | number NO reason
//! ```
//! Fields are separated by one blank. Texts are escaped (see [`codec::escape`]), numbers decimal, `-` stands for none.
//! Frames that are damaged get no answer.
//!
//! | request | answer | does |
//! | --- | --- | --- |
//! | `STATE -` | serial, clock, battery in %, slots, slots used, age | tells how it is |
//! | `CLOCK - clock` | | sets its clock |
//! | `PUT job key kind content start end generation` | sequence | puts or replaces the entry `key` |
//! | `DEL job key` | sequence, `-` if there was none | empties the entry `key` |
//! | `OPEN job` | sequence | opens the door, **each time it is asked** |
//! | `TABLE - from` | next, entries | the slots from number `from`, as many as fit; `next` is where to go on |
//! | `LEDGER job after` | first, next, entries | what was done for `job` (`-`: all) after sequence `after` |
//!
//! `clock` is the lock's local time with its offset, `20261025T023000+0100`; `start` and `end` are plain local times,
//! `20261121T150000`, and `end` may be `-`. `kind` is `PIN` (4 to 8 digits) or `CARD` (4 to 20 hexadecimal digits). An
//! entry of the table is `key kind content start end generation`, one of the ledger `sequence clock job what key` with
//! `what` one of `begun`, `put`, `removed`, `unlocked`, `clock_set`, `opened` (by a PIN), `opened_card`, `refused` (at the
//! keypad), `locked_hand`, `unlocked_hand`. The ledger keeps what was done,
//! not what was refused over the wire; `first` is the oldest sequence kept, and 1 is always `begun`. `age` counts the
//! seconds since the memory began, whatever the clock shows.
//!
//! Reasons: `BUSY`, `FULL` (no free slot), `TAKEN` (the content is in another slot), `OLDER` (the entry has a later
//! generation), `FORMAT` (of PIN or card number), `DATES`, `BAD` (not understood).
//!
//! # Repetition
//! `PUT` and `DEL` with the same values leave the same table, however often they are asked. `OPEN` is done as often as
//! it is asked: the driver asks once, and silence after that is a doubt.

pub mod codec;
pub mod driver;
mod events;
pub mod message;
pub mod session;
pub mod sim;

pub use driver::SimLock;
