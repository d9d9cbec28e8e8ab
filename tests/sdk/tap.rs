//! What clients and cloud say to each other, read on its way: a listener with a certificate of the cloud's own
//! authority that passes every byte on as it came, and keeps it.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use jiff::Timestamp;
use latchd::{
    cloud::tls::{Authority, For, Leaf, server},
    seams::{Clock, Random},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// The two directions of a connection: to the cloud and back.
type Conversation = [Bytes; 2];

/// One call as it was made and answered.
#[derive(Debug)]
pub struct Exchange {
    pub path: String,
    pub status: u16,
    pub answer: Value,
}

/// The listener; gone when dropped.
pub struct Tap {
    /// Where clients go in place of the cloud.
    pub url: String,
    heard: Arc<Mutex<Vec<Conversation>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Tap {
    /// Listens before the API at `url`, whose cloud keeps its authority in `folder`.
    pub fn before(url: &str, folder: &Path) -> Self {
        let cloud: SocketAddr = url.strip_prefix("https://").unwrap().parse().unwrap();
        let authority = Authority::open(folder, For::Servers, Timestamp::now(), &Random::system()).unwrap();
        let leaf = Leaf::new(&Arc::new(authority), vec![cloud.ip().to_string()], Timestamp::now()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server(leaf, None, Clock::system()).unwrap()));
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&fs::read(folder.join("ca.pem")).unwrap()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let road = Road { cloud, acceptor, connector: TlsConnector::from(Arc::new(client)) };

        let (heard, (stop, stopped)) = (Arc::<Mutex<Vec<Conversation>>>::default(), oneshot::channel());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let kept = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listen(TcpListener::from_std(listener).unwrap(), road, &kept, stopped).await;
            });
        });
        Self { url, heard, stop: Some(stop), thread: Some(thread) }
    }

    /// Every call that was answered so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let heard = self.heard.lock().unwrap();
        let calls = heard.iter().flat_map(|[asked, answered]| {
            let (asked, answered) = (asked.lock().unwrap(), answered.lock().unwrap());
            let exchanges: Vec<_> = Messages(&asked).zip(Messages(&answered)).map(exchange).collect();
            exchanges
        });
        calls.collect()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

#[derive(Clone)]
struct Road {
    cloud: SocketAddr,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

async fn listen(
    listener: TcpListener,
    road: Road,
    heard: &Mutex<Vec<Conversation>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => {
                let conversation = Conversation::default();
                heard.lock().unwrap().push(conversation.clone());
                connections.spawn(pass(accepted.unwrap().0, road.clone(), conversation));
            }
        }
    }
}

/// Ends where either side does; what that does to the other is its own affair.
async fn pass(client: TcpStream, road: Road, [asked, answered]: Conversation) {
    let Ok(client) = road.acceptor.accept(client).await else { return };
    let cloud = TcpStream::connect(road.cloud).await.unwrap();
    let cloud = road.connector.connect(ServerName::from(road.cloud.ip()), cloud).await.unwrap();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_cloud, mut to_cloud) = tokio::io::split(cloud);
    tokio::join!(
        copy(&mut from_client, &mut to_cloud, &asked),
        copy(&mut from_cloud, &mut to_client, &answered)
    );
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), kept: &Bytes) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.lock().unwrap().extend(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Head and body.
type Message<'a> = (&'a str, &'a [u8]);

/// The messages of one direction.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.0.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.0[..end]).unwrap();
        let field = |name: &str| {
            let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        assert_eq!(field("transfer-encoding"), None, "{head}");
        let length: usize = field("content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.0[end + 4..].get(..length)?;
        self.0 = &self.0[end + 4 + length..];
        Some((head, body))
    }
}

fn exchange(((asked, _), (answered, body)): (Message<'_>, Message<'_>)) -> Exchange {
    let word = |head: &str, number| head.split(' ').nth(number).unwrap().to_owned();
    Exchange {
        path: word(asked, 1).split('?').next().unwrap().to_owned(),
        status: word(answered, 1).parse().unwrap(),
        answer: serde_json::from_slice(body).unwrap(),
    }
}
