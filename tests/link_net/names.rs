//! Names and addresses in front of the simulated network. A name server answers at once, or not at all; an address
//! leads to the one cloud's host, or nowhere.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use latchd::seams::{BoxFuture, Listener, Net, ResolveError, Stream};

/// What a name server says of a name.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    At(Vec<IpAddr>),
    Unknown,
    Fails,
    Silent,
}

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    Refuses,
    NoRoute,
    /// Nothing comes back.
    Dead,
}

/// The network as the link sees it; all clones are one.
#[derive(Clone)]
pub(super) struct Names {
    inner: Arc<dyn Net>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    names: BTreeMap<String, Answer>,
    places: BTreeMap<IpAddr, Place>,
}

impl Names {
    pub(super) fn over(inner: Arc<dyn Net>) -> Self {
        Self { inner, book: Arc::default() }
    }

    pub(super) fn answer(&self, name: &str, answer: Answer) {
        self.book.lock().unwrap().names.insert(name.into(), answer);
    }

    pub(super) fn place(&self, address: &str, place: Place) {
        self.book.lock().unwrap().places.insert(address.parse().unwrap(), place);
    }
}

impl Net for Names {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        unreachable!("the link resolves first")
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Vec<SocketAddr>, ResolveError>> {
        let answer = self.book.lock().unwrap().names.get(host).cloned().unwrap_or(Answer::Unknown);
        Box::pin(async move {
            match answer {
                Answer::At(found) => Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
                Answer::Unknown => Err(ResolveError::Unknown(io::Error::other("NXDOMAIN"))),
                Answer::Fails => Err(ResolveError::Silent(io::Error::other("SERVFAIL"))),
                Answer::Silent => std::future::pending().await,
            }
        })
    }

    fn connect_to<'a>(
        &'a self,
        _: &'a str,
        address: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        let place = self.book.lock().unwrap().places.get(&address.ip()).copied().unwrap_or(Place::Here);
        Box::pin(async move {
            match place {
                Place::Here => self.inner.connect("cloud", address.port()).await,
                Place::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
                Place::NoRoute => Err(io::ErrorKind::HostUnreachable.into()),
                Place::Dead => std::future::pending().await,
            }
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }
}
