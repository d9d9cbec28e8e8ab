//! `latchd`: the on-premises bridge between a property's access systems and the cloud.
//!
//! # One road
//! ```text
//! cloud frame -> link -> queue -> dispatch -> driver -> session -> codec -> transport -> device
//!             <- outbox in the queue <- outcome <-----------------------------'
//! ```
//! A job travels one way and its result travels back the same road. What the whole product promises: **a job is never
//! lost, never silently done twice, never reported as something that did not happen.** Once bytes of a command that
//! must not be repeated may have left, silence is `unknown`, never `failed`.
//!
//! # Rooms, and what each never does
//! | room | is | never |
//! | --- | --- | --- |
//! | [`model`] | jobs, doors, stays, outcomes | does IO, logs, reads a clock |
//! | [`protocol`] | the language between bridge and cloud | sees a socket or SQL |
//! | [`grants`] | what a grant means: methods, events, jobs; pure | does IO, reads a clock |
//! | [`seams`] | time, randomness, network, storage | knows what a job is |
//! | [`seal`] | sealing of secrets at rest | knows what is sealed |
//! | [`store`] | opening, migrating and writing a database | knows a table |
//! | [`queue`] | job states, the door ledger, the outbox; SQL | sees a driver, the network, a task |
//! | [`dispatch`] | lanes: which job next, what its end means | sees SQL or bytes |
//! | [`drivers`] | orders to commands, answers to outcomes | sees the cloud, the queue, SQL |
//! | [`transport`] | serial ports and TCP lines | knows a protocol |
//! | [`link`] | the agent's one outbound connection | knows what a job means |
//! | [`local`] | sockets for local administration, line by line | knows a question or an answer |
//! | [`agent`] | the rooms of the agent put together | decides anything |
//! | [`cloud`] | the HTTP API and the bridges' websocket | is seen by any room of the agent |
//! | [`sim`] | what simulators share: ptys, control, the tape | is seen by any room but `cli` and the drivers' own `sim` |
//! | [`config`] | the configuration files | opens anything but these files |
//! | [`cli`] | prints | decides anything |
//! | [`threats`] | what attackers can and cannot do, with the tests that show it | holds code |
//!
//! The rules that can be read off the sources' imports are tested in `tests/rooms.rs`.

pub mod agent;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod dispatch;
pub mod drivers;
pub mod grants;
pub mod link;
pub mod local;
pub mod model;
pub mod protocol;
pub mod queue;
pub mod seal;
pub mod seams;
pub mod sim;
pub mod store;
pub mod threats;
pub mod transport;
