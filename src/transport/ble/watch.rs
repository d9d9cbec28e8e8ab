//! Watches the bus and the daemon on a connection of its own: btleplug tells of neither's end.

use std::sync::Arc;

use dbus::{
    message::MatchRule,
    nonblock::{MsgMatch, SyncConnection},
};
use tokio::sync::mpsc;

/// What became of the daemon or of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The daemon has gone.
    DaemonGone,
    /// The daemon is there again.
    DaemonBack,
    /// The bus has gone.
    BusGone,
}

/// A watch that lasts until it is dropped.
pub(super) struct Watch {
    news: mpsc::Receiver<News>,
    connection: Arc<SyncConnection>,
    /// Nothing more is told once this is dropped.
    _owners: MsgMatch,
    bus: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Connects to the system bus; blocks the thread for as long as that takes.
    pub(super) async fn start() -> Result<Self, dbus::Error> {
        let (resource, connection) = dbus_tokio::connection::new_system_sync()?;
        // News are few, and the newest tells all: what finds no room need not be told.
        let (sender, news) = mpsc::channel(16);
        let of_bus = sender.clone();
        let bus = crate::seams::spawn(async move {
            let error = resource.await;
            tracing::debug!(%error, "the message bus is gone");
            let _ = of_bus.send(News::BusGone).await;
        });
        let mut rule = MatchRule::new_signal("org.freedesktop.DBus", "NameOwnerChanged");
        rule.sender = Some("org.freedesktop.DBus".into());
        let found = connection.add_match(rule).await?;
        let owners = found.cb(move |_, (name, _before, owner): (String, String, String)| {
            if name == "org.bluez" {
                let _ = sender.try_send(if owner.is_empty() { News::DaemonGone } else { News::DaemonBack });
            }
            true
        });
        Ok(Self { news, connection, _owners: owners, bus })
    }

    /// The connection, for more than watching.
    pub(super) fn connection(&self) -> Arc<SyncConnection> {
        self.connection.clone()
    }

    /// The next news. Cancel-safe.
    pub(super) async fn next(&mut self) -> News {
        self.news.recv().await.unwrap_or(News::BusGone)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bus.abort();
        tracing::trace!(name = %self.connection.unique_name(), "the watch ends");
    }
}
