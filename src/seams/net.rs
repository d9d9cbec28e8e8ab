//! The network of the link between bridge and cloud: connect and listen, by the operating system or in memory.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV4},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
};

/// A future on the heap, as object-safe traits need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A network.
pub trait Net: Send + Sync {
    /// Connects to a host, by name or address.
    ///
    /// # Errors
    /// Those of name resolution and of the connection.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;

    /// The addresses of a host, in the order in which they are to be tried. A network that knows hosts by their names
    /// alone gives one address, which stands for whatever the host is.
    ///
    /// # Errors
    /// Those of name resolution.
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Vec<SocketAddr>, ResolveError>> {
        Box::pin(async move { Ok(vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]) })
    }

    /// Connects to one address of a host.
    ///
    /// # Errors
    /// Those of the connection.
    fn connect_to<'a>(
        &'a self,
        host: &'a str,
        address: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        self.connect(host, address.port())
    }

    /// Listens at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// A socket for datagrams at an address of IPv4, which may send to everybody; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not ours; [`io::ErrorKind::Unsupported`] where there are no datagrams.
    fn datagrams(&self, address: SocketAddrV4) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let _ = address;
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// A socket for datagrams.
pub trait Datagrams: Send + Sync {
    /// Where it is.
    fn address(&self) -> SocketAddr;

    /// Sends one.
    ///
    /// # Errors
    /// Those of the operating system.
    fn send<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>>;

    /// Receives the next one; what does not fit is cut off. How long it is, and where it comes from.
    ///
    /// # Errors
    /// Those of the operating system, one of an earlier datagram among them; the socket stays usable.
    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The answer was that there is no such name, or that it has no address.
    #[error("there is no such name")]
    Unknown(#[source] io::Error),
    /// Nobody answered.
    #[error("no name server answers")]
    Silent(#[source] io::Error),
}

impl ResolveError {
    /// The operating system tells its reasons apart by nothing but their words: those of glibc and of musl for a
    /// name that is not there. What is neither may pass.
    fn of(error: io::Error) -> Self {
        let unknown = [
            "Name or service not known",
            "No address associated with hostname",
            "Name does not resolve",
            "Name has no usable address",
        ];
        let text = error.to_string();
        match unknown.iter().any(|words| text.contains(words)) {
            true => Self::Unknown(error),
            false => Self::Silent(error),
        }
    }
}

/// A listening socket.
pub trait Listener: Send {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// The next connection and where it comes from.
    ///
    /// # Errors
    /// Those of the operating system; the listener stays usable.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// The operating system's network, with `TCP_NODELAY` and keep-alive probes on every connection it makes: a peer that
/// lost its power is noticed within two minutes although nobody writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNet;

/// A silent connection is probed after this long,
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// then so often,
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// and ends after so many probes without an answer.
const KEEPALIVE_PROBES: u32 = 4;

impl Net for SystemNet {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { kept_alive(TcpStream::connect((host, port)).await?) })
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Vec<SocketAddr>, ResolveError>> {
        Box::pin(async move {
            match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(ResolveError::of(error)),
            }
        })
    }

    fn connect_to<'a>(
        &'a self,
        _host: &'a str,
        address: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { kept_alive(TcpStream::connect(address).await?) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Listener>) })
    }

    fn datagrams(&self, address: SocketAddrV4) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(address).await?;
            socket.set_broadcast(true)?;
            Ok(Box::new(socket) as Box<dyn Datagrams>)
        })
    }
}

impl Datagrams for UdpSocket {
    fn address(&self) -> SocketAddr {
        self.local_addr().expect("a bound socket has an address")
    }

    fn send<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.send_to(bytes, to).await.map(drop) })
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(self.recv_from(buffer))
    }
}

fn kept_alive(stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    stream.set_nodelay(true)?;
    set_socket_keepalive(&stream, true)?;
    set_tcp_keepidle(&stream, KEEPALIVE_AFTER)?;
    set_tcp_keepintvl(&stream, KEEPALIVE_EVERY)?;
    set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    Ok(Box::new(stream))
}

impl Listener for TcpListener {
    fn address(&self) -> SocketAddr {
        self.local_addr().expect("a bound socket has an address")
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }
}

/// A network inside one process: what listens at a port is found under any host name. Ports given out for 0 count up
/// from 40000. It does not imitate latency, loss, buffering by the kernel or name resolution.
#[derive(Debug, Clone, Default)]
pub struct MemoryNet {
    ports: Arc<Mutex<HashMap<u16, mpsc::Sender<DuplexStream>>>>,
}

/// How many bytes an in-memory connection holds before a writer waits.
const MEMORY_BUFFER: usize = 64 * 1024;

impl Net for MemoryNet {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let refused =
                || io::Error::new(io::ErrorKind::ConnectionRefused, format!("nobody at {host}:{port}"));
            let listener = self.ports.lock().expect("no panic while held").get(&port).cloned();
            let (ours, theirs) = tokio::io::duplex(MEMORY_BUFFER);
            listener.ok_or_else(refused)?.send(theirs).await.map_err(|_| refused())?;
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut ports = self.ports.lock().expect("no panic while held");
            ports.retain(|_, listener| !listener.is_closed());
            let port = match address.port() {
                0 => (40_000..u16::MAX).find(|port| !ports.contains_key(port)).unwrap_or(0),
                port => port,
            };
            if ports.contains_key(&port) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, incoming) = mpsc::channel(16);
            ports.insert(port, sender);
            let address = SocketAddr::new(address.ip(), port);
            Ok(Box::new(MemoryListener { address, incoming }) as Box<dyn Listener>)
        })
    }
}

struct MemoryListener {
    address: SocketAddr,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl Listener for MemoryListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let stream = self.incoming.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            Ok((Box::new(stream) as Box<dyn Stream>, SocketAddr::new(self.address.ip(), 0)))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn echo_over(net: &dyn Net) {
        let mut listener = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.address().port();
        let (connected, accepted) = tokio::join!(net.connect("127.0.0.1", port), listener.accept());
        let (mut here, mut there) = (connected.unwrap(), accepted.unwrap().0);
        here.write_all(b"knock").await.unwrap();
        let mut heard = [0; 5];
        there.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"knock");
    }

    #[tokio::test]
    async fn a_name_that_is_not_there_is_told_from_servers_that_do_not_answer() {
        let failed = |why: &str| {
            ResolveError::of(io::Error::other(format!("failed to lookup address information: {why}")))
        };
        assert!(matches!(failed("Name or service not known"), ResolveError::Unknown(_)));
        assert!(matches!(failed("Name does not resolve"), ResolveError::Unknown(_)));
        assert!(matches!(failed("Temporary failure in name resolution"), ResolveError::Silent(_)));
        assert!(matches!(failed("Try again"), ResolveError::Silent(_)));
        let found = SystemNet.resolve("127.0.0.1", 7).await.unwrap();
        assert_eq!(found, ["127.0.0.1:7".parse().unwrap()]);
    }

    #[tokio::test]
    async fn both_networks_carry_bytes() {
        echo_over(&SystemNet).await;
        echo_over(&MemoryNet::default()).await;
    }

    #[tokio::test]
    async fn datagrams_go_there_and_back() {
        let at = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
        let (here, there) = (SystemNet.datagrams(at).await.unwrap(), SystemNet.datagrams(at).await.unwrap());
        here.send(b"knock", there.address()).await.unwrap();
        let mut heard = [0; 8];
        assert_eq!(there.receive(&mut heard).await.unwrap(), (5, here.address()));
        assert_eq!(&heard[..5], b"knock");
        let refused = MemoryNet::default().datagrams(at).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn nobody_at_a_port_is_a_refused_connection_and_a_taken_port_is_named() {
        let net = MemoryNet::default();
        let refused = net.connect("cloud", 9).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = net.listen("127.0.0.1:7".parse().unwrap()).await.unwrap();
        let taken = net.listen("127.0.0.1:7".parse().unwrap()).await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
