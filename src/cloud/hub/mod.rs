//! The websocket of the bridges.

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{Signals, store::Db};
use crate::{
    seams::{Clock, Listener},
    store::WriterHandle,
};

/// Serves bridges until `shutdown` turns true.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    _tls: TlsAcceptor,
    _db: WriterHandle<Db>,
    _signals: Signals,
    _clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = shutdown.changed() => return,
            accepted = listener.accept() => drop(accepted),
        }
    }
}
