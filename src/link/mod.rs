//! The agent's one outbound connection to its cloud.
//!
//! A machine decides (pure: no socket, no clock), `dial` connects, and the task started by `start` pumps frames. `enrol`
//! asks a cloud on the same way to take a site in, or to go on with it.
//! This room does not know what a job means: it carries frames.

mod dial;
pub mod enrol;
mod heartbeat;
mod identity;
mod machine;
mod settings;
mod task;
pub(crate) mod wire;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use heartbeat::{Beat, Heartbeat};
pub use identity::Identity;
#[cfg(test)]
pub(crate) use settings::of_nobody;
pub use settings::{LinkError, Settings, roots, roots_of};
pub use task::start;

use crate::{
    protocol::{Frame, Memory, Welcome},
    seams::Net,
};

/// What the link tells the agent.
#[derive(Debug)]
pub enum Event {
    /// A connection stands and wants to say hello: what does the agent remember?
    Connecting(oneshot::Sender<Memory>),
    /// The cloud welcomed us. Frames for this connection carry its number.
    Up {
        /// Counts connections; frames for an older one are dropped.
        connection: u64,
        /// What the cloud said.
        welcome: Welcome,
    },
    /// A frame arrived (never ping, pong, hello or welcome).
    Frame {
        /// On which connection.
        connection: u64,
        /// What.
        frame: Frame,
    },
    /// No connection; it is tried again by itself.
    Down(Trouble),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Stable name: `link_unreachable`, `link_tls_untrusted`, `link_not_paired`, `link_silent`, `link_closed`, …
    pub code: &'static str,
    /// For a person: what is wrong, and what to do.
    pub message: String,
}

/// Finds out whether the cloud can be reached and knows our certificate, up to the point where frames could be exchanged. No
/// frame is: a connection that stands is not disturbed.
///
/// # Errors
/// What is in the way.
pub async fn probe(settings: &Settings, net: &dyn Net, now: Timestamp) -> Result<(), Trouble> {
    dial::dial(settings, net, now).await.map(drop).map_err(|end| end.trouble())
}

/// The agent's end of the link.
#[derive(Debug)]
pub struct Link {
    /// What happens. Bounded: an agent that does not look slows the connection down, never fills memory.
    pub events: mpsc::Receiver<Event>,
    /// Frames to send, each with the number of the connection it is meant for.
    pub frames: mpsc::Sender<(u64, Frame)>,
    /// Where the cloud is and who we are to it, from the next connection on. With another key, a connection that
    /// stands is given up for a new one at once.
    pub settings: watch::Sender<Settings>,
}
