//! Opening and closing a line: a serial port or a TCP socket, as one boxed stream.
//!
//! Rules for whoever holds a [`Port`]: a read of zero bytes means that it hung up, and so does every read after; never
//! `flush` or `shutdown` it, on a serial port that blocks the thread until the bytes are out; close it with
//! [`Target::hang_up`] before opening it again, else a replugged device gets another name.

use std::{
    fmt, fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_serial::{
    ClearBuffer, DataBits, ErrorKind, FlowControl, Parity, SerialPort, SerialPortBuilder, SerialStream,
    StopBits,
};

use crate::{
    config::LineConfig,
    seams::{Net, Stream},
};

/// An open line.
pub type Port = Box<dyn Stream>;

/// Where a line leads, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP server.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A serial port.
    Serial(SerialTarget),
}

/// A serial port and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialTarget {
    path: PathBuf,
    baud: u32,
    data_bits: DataBits,
    parity: Parity,
    stop_bits: StopBits,
    hardware_handshake: bool,
}

/// Why a line is not open.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The configuration names no line, or an impossible one.
    #[error("line: {0}")]
    Config(String),
    /// There is no such port.
    #[error("serial port {} is not there; is the adapter plugged in?", path.display())]
    Missing {
        /// The port.
        path: PathBuf,
    },
    /// Somebody else has the port.
    #[error("serial port {} is held by {holder}; stop it, the port opens then by itself", path.display())]
    Held {
        /// The port.
        path: PathBuf,
        /// Who, as far as we may see.
        holder: String,
    },
    /// The port is there and does not open.
    #[error("open serial port {}: {why}", path.display())]
    Open {
        /// The port.
        path: PathBuf,
        /// The operating system's words.
        why: String,
    },
    /// Nobody answers at the address.
    #[error("connect to {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
}

impl LineError {
    /// Stable name: shown to operators, sent to the cloud, used as a metric label.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "line_config",
            Self::Missing { .. } => "port_missing",
            Self::Held { .. } => "port_held",
            Self::Open { .. } => "port_open",
            Self::Unreachable { .. } => "tcp_unreachable",
        }
    }

    /// Whether somebody took the connection and threw it away at once.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => source.kind() == io::ErrorKind::ConnectionReset,
            Self::Config(_) | Self::Missing { .. } | Self::Held { .. } | Self::Open { .. } => false,
        }
    }
}

/// How long a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// A serial port gets this long to deliver what came in before we spoke; a long frame takes about 100 ms at 9600 baud.
const LEFTOVERS: Duration = Duration::from_millis(100);
/// Closing a serial port may wait for unsent bytes, by default 30 s in the kernel.
const CLOSE: Duration = Duration::from_secs(35);

impl Target {
    /// Checks the configuration of a line.
    ///
    /// # Errors
    /// [`LineError::Config`] when it names no line or two, or when a setting makes no sense.
    pub fn from_config(config: &LineConfig) -> Result<Self, LineError> {
        let wrong = |what: String| Err(LineError::Config(what));
        match (&config.tcp, &config.serial) {
            (Some(_), Some(_)) => wrong("both `tcp` and `serial` are given; choose one".into()),
            (None, None) => wrong("neither `tcp` nor `serial` is given".into()),
            (Some(address), None) => Self::tcp(address),
            (None, Some(path)) => {
                let Some((data_bits, parity, stop_bits)) = framing(&config.framing) else {
                    return wrong(format!(
                        "`framing` is {:?}; write it like \"8N1\" or \"7E2\"",
                        config.framing
                    ));
                };
                if config.baud == 0 {
                    return wrong("`baud` is 0".into());
                }
                Ok(Self::Serial(SerialTarget {
                    path: path.clone(),
                    baud: config.baud,
                    data_bits,
                    parity,
                    stop_bits,
                    hardware_handshake: config.hardware_handshake,
                }))
            }
        }
    }

    /// A TCP server at `HOST:PORT`.
    ///
    /// # Errors
    /// [`LineError::Config`] when that is no address.
    pub fn tcp(address: &str) -> Result<Self, LineError> {
        let parts = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        match parts {
            Some((host, Ok(port @ 1..))) if !host.is_empty() => {
                Ok(Self::Tcp { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port })
            }
            _ => Err(LineError::Config(format!(
                "the address is {address:?}; write it like \"salto.lan:8090\""
            ))),
        }
    }

    /// Whether it is a TCP connection: there, a new connection hears nothing of the old one's.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        match self {
            Self::Tcp { .. } => true,
            Self::Serial(_) => false,
        }
    }

    /// Opens it; a TCP connection over `net`.
    ///
    /// # Errors
    /// By name: missing, held, not opening, not reachable.
    pub async fn open(&self, net: &dyn Net) -> Result<Port, LineError> {
        match self {
            Self::Tcp { host, port } => timeout(CONNECT, net.connect(host, *port))
                .await
                .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|source| LineError::Unreachable { address: self.to_string(), source }),
            Self::Serial(target) => open_serial(target).await,
        }
    }

    /// Closes a line that was opened here. A serial port may take its time, away from the runtime's threads.
    pub async fn hang_up(&self, port: Port) {
        if self.is_tcp() {
            return drop(port);
        }
        let closing = spawn_blocking(move || drop(port));
        if timeout(CLOSE, closing).await.is_err() {
            tracing::warn!("the line takes long to close; going on without it");
        }
    }
}

impl Target {
    /// Looks whether it could be opened. A TCP connection is made and closed again; a serial port is not touched.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub async fn look(&self, net: &dyn Net) -> Result<(), LineError> {
        match self {
            Self::Tcp { .. } => self.open(net).await.map(drop),
            Self::Serial(target) => {
                let path = target.path.clone();
                match spawn_blocking(move || look_at(&path)).await {
                    Ok(looked) => looked,
                    Err(_panic) => {
                        Err(LineError::Open { path: target.path.clone(), why: "looking at it failed".into() })
                    }
                }
            }
        }
    }
}

fn look_at(path: &Path) -> Result<(), LineError> {
    let open = |why: String| LineError::Open { path: path.into(), why };
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LineError::Missing { path: path.into() });
        }
        Err(error) => return Err(open(error.to_string())),
    };
    if !found.file_type().is_char_device() {
        return Err(open("it is not a device".into()));
    }
    let allowed = rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    if allowed.is_err() {
        return Err(refused(path, &io::Error::from(io::ErrorKind::PermissionDenied).into()));
    }
    match holder_of(path) {
        Some(holder) => Err(LineError::Held { path: path.into(), holder }),
        None => Ok(()),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Serial(target) => target.path.display().fmt(f),
        }
    }
}

async fn open_serial(target: &SerialTarget) -> Result<Port, LineError> {
    let builder = target.builder()?;
    let path = target.path.clone();
    let opened = spawn_blocking(move || SerialStream::open(&builder).map_err(|error| refused(&path, &error)));
    let port = opened.await.map_err(|_panic| LineError::Open {
        path: target.path.clone(),
        why: "opening it failed inside the serial library".into(),
    })??;
    sleep(LEFTOVERS).await;
    port.clear(ClearBuffer::All).map_err(|error| refused(&target.path, &error))?;
    Ok(Box::new(port))
}

fn refused(path: &Path, error: &tokio_serial::Error) -> LineError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::NoDevice => {
            LineError::Held { holder: holder_of(&path).unwrap_or_else(|| "another program".into()), path }
        }
        ErrorKind::Io(io::ErrorKind::NotFound) => LineError::Missing { path },
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => LineError::Open {
            path,
            why: "permission denied; the user of latchd must be in the group that owns it, often `dialout`"
                .into(),
        },
        ErrorKind::Io(_) | ErrorKind::InvalidInput | ErrorKind::Unknown => {
            LineError::Open { path, why: error.to_string() }
        }
    }
}

/// The process that has a device open, like `picocom (pid 812)`. Other users' processes show only to root.
fn holder_of(path: &Path) -> Option<String> {
    let device = fs::canonicalize(path).ok()?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|open| open == device))?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim_end()))
    })
}

impl SerialTarget {
    fn builder(&self) -> Result<SerialPortBuilder, LineError> {
        let path = self
            .path
            .to_str()
            .ok_or_else(|| LineError::Config(format!("the path {} is not UTF-8", self.path.display())))?;
        Ok(tokio_serial::new(path, self.baud)
            .data_bits(self.data_bits)
            .parity(self.parity)
            .stop_bits(self.stop_bits)
            .flow_control(if self.hardware_handshake { FlowControl::Hardware } else { FlowControl::None })
            .exclusive(true))
    }
}

fn framing(text: &str) -> Option<(DataBits, Parity, StopBits)> {
    let &[data, parity, stop] = text.as_bytes() else {
        return None;
    };
    let data = match data {
        b'7' => DataBits::Seven,
        b'8' => DataBits::Eight,
        _ => return None,
    };
    let parity = match parity.to_ascii_uppercase() {
        b'N' => Parity::None,
        b'E' => Parity::Even,
        b'O' => Parity::Odd,
        _ => return None,
    };
    let stop = match stop {
        b'1' => StopBits::One,
        b'2' => StopBits::Two,
        _ => return None,
    };
    Some((data, parity, stop))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::seams::SystemNet;

    fn config(tcp: Option<&str>, serial: Option<&str>, framing: &str) -> LineConfig {
        LineConfig {
            tcp: tcp.map(String::from),
            serial: serial.map(PathBuf::from),
            baud: 9600,
            framing: framing.into(),
            hardware_handshake: true,
        }
    }

    #[test]
    fn a_line_is_either_tcp_or_serial_with_sensible_settings() {
        assert!(Target::from_config(&config(Some("salto.lan:8090"), None, "8N1")).is_ok());
        assert!(Target::from_config(&config(Some("[::1]:8090"), None, "8N1")).is_ok());
        let Ok(Target::Serial(target)) = Target::from_config(&config(None, Some("/dev/ttyS0"), "7E2")) else {
            panic!("a serial port");
        };
        assert_eq!(
            (target.data_bits, target.parity, target.stop_bits),
            (DataBits::Seven, Parity::Even, StopBits::Two)
        );
        for (tcp, serial, framing) in [
            (None, None, "8N1"),
            (Some("a:1"), Some("/dev/ttyS0"), "8N1"),
            (Some("a"), None, "8N1"),
            (Some(":80"), None, "8N1"),
            (Some("a:0"), None, "8N1"),
            (Some("a:70000"), None, "8N1"),
            (None, Some("/dev/ttyS0"), "8X1"),
            (None, Some("/dev/ttyS0"), "8N1 "),
            (None, Some("/dev/ttyS0"), ""),
        ] {
            let error = Target::from_config(&config(tcp, serial, framing)).unwrap_err();
            assert_eq!(error.code(), "line_config", "{tcp:?} {serial:?} {framing:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_not_there_and_a_server_that_is_not_there_are_named() {
        let code = async |config: LineConfig| {
            let target = Target::from_config(&config).unwrap();
            target.open(&SystemNet).await.err().unwrap().code()
        };
        assert_eq!(code(config(None, Some("/dev/no-such-port"), "8N1")).await, "port_missing");
        assert_eq!(code(config(None, Some("/dev/null"), "8N1")).await, "port_open");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        drop(taken);
        assert_eq!(code(config(Some(&address), None, "8N1")).await, "tcp_unreachable");
    }

    #[tokio::test]
    async fn a_tcp_line_carries_bytes_both_ways() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Target::from_config(&config(Some(&address), None, "8N1")).unwrap();
        let (port, accepted) = tokio::join!(target.open(&SystemNet), listener.accept());
        let (mut port, mut peer) = (port.unwrap(), accepted.unwrap().0);
        port.write_all(b"\x05").await.unwrap();
        assert_eq!(peer.read_u8().await.unwrap(), 5);
        peer.write_all(b"\x06").await.unwrap();
        assert_eq!(port.read_u8().await.unwrap(), 6);
        target.hang_up(port).await;
        assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
