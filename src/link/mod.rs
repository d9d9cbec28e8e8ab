//! The agent's one outbound connection to its cloud.
//!
//! A machine decides (pure: no socket, no clock), `dial` connects, and the task started by `start` pumps frames. `enrol`
//! asks a cloud on the same way to take a site in, or to go on with it.
//! This room does not know what a job means: it carries frames.
//!
//! # The way out
//! A [`Route`] has one or more addresses of the same cloud. Each attempt goes, before one deadline of 30 s:
//!
//! ```text
//! name -> addresses, raced -> (proxy: CONNECT) -> TLS, who vouches, pins -> websocket -> hello, welcome
//! ```
//!
//! What stops it is named by how far it came, because that is what tells a person where to look; each name (`link_…`)
//! is stable. An address that fails hands on to the next at once; after the last there is a wait, uniform up to a
//! bound that doubles from one second to a minute and is forgotten only after a healthy one. A peer that asks for more
//! patience (`Retry-After`, close codes 1012 and 1013) gets it, up to five minutes: nobody keeps a site offline for
//! longer with one answer, and one address does not speak for the others. A person who has put something right and reloads
//! the agent waits for none of this.
//!
//! What trying again cannot cure is tried again all the same, because a site has nobody who would restart it. Only a
//! first setup, where a person waits for the reason, ends with it.
//!
//! A proxy that inspects is told from a stranger by who vouches for it: this machine does, the cloud's own authority
//! or pins do not. It is named and refused. Nothing here makes a doubtful certificate good.

mod dial;
pub mod enrol;
mod heartbeat;
mod identity;
mod issuer;
mod machine;
mod proxy;
mod race;
mod retry;
mod route;
mod settings;
mod task;
mod trust;
pub(crate) mod wire;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

pub(crate) use heartbeat::{Beat, Heartbeat};
pub use identity::Identity;
pub use proxy::ask_proxy;
pub use route::{Proxy, Route};
#[cfg(test)]
pub(crate) use settings::of_nobody;
pub use settings::{LinkError, Settings, roots};
pub use task::start;
pub use trust::Trust;

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
        /// The address that stands (`HOST:PORT`), where it is not the one that is preferred.
        further: Option<String>,
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
    /// No connection, and there will be none: the last event of a link that was to be set up.
    GaveUp(Trouble),
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
/// What is in the way, at each of its addresses.
pub async fn probe(settings: &Settings, net: &dyn Net, now: Timestamp) -> Result<(), Trouble> {
    let moment = dial::Moment { host: now, cloud: None };
    let mut troubles = Vec::new();
    for endpoint in &settings.route.endpoints {
        let until = Instant::now() + machine::CONNECT_WITHIN;
        match dial::dial(settings, endpoint, net, moment, until).await {
            Ok(_) => return Ok(()),
            Err(end) => troubles.push((endpoint, end.trouble())),
        }
    }
    Err(merged(&troubles))
}

/// One trouble out of those of all addresses: the code of the preferred one, the words of all.
fn merged(troubles: &[(&route::Endpoint, Trouble)]) -> Trouble {
    let told: Vec<_> = match troubles {
        [(_, trouble)] => return trouble.clone(),
        several => several.iter().map(|(at, trouble)| format!("{at}: {}", trouble.message)).collect(),
    };
    let code = troubles.first().map_or("link_closed", |(_, trouble)| trouble.code);
    Trouble { code, message: told.join("; ") }
}

/// The agent's end of the link.
#[derive(Debug)]
pub struct Link {
    /// What happens. Bounded: an agent that does not look slows the connection down, never fills memory.
    pub events: mpsc::Receiver<Event>,
    /// Frames to send, each with the number of the connection it is meant for.
    pub frames: mpsc::Sender<(u64, Frame)>,
    /// Where the cloud is and who we are to it, from the next connection on. With another key or other addresses, a
    /// connection that stands is given up for a new one at once.
    pub settings: watch::Sender<Settings>,
    /// Somebody has put right what was in the way and does not want to wait for the next attempt: a wait ends at once,
    /// and an attempt that is under way and fails is followed by another one. Means nothing while a connection stands.
    pub at_once: Arc<Notify>,
}
