//! A world of one story: a network, a clock, authorities, a link, and a diary of what happened when.

use std::{
    fmt::Display,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use latchd::{
    config::Pins,
    link::{Event, Link, Route, Settings, Trouble, Trust},
    model::Private,
    protocol::{Hello, Position},
    seams::{Clock, Listener, Random},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    names::{Answer, Names},
    net::{Host, Network},
};

pub(super) const CLOUD: &str = "cloud.example";
pub(super) const CLOUD_URL: &str = "wss://cloud.example";
/// The longest wait between two attempts, and what an attempt itself may take.
pub(super) const BOUND: Duration = Duration::from_secs(60 + 1);

/// A world; all clones are one.
#[derive(Clone)]
pub(super) struct World {
    pub(super) network: Network,
    pub(super) names: Names,
    pub(super) clock: Clock,
    /// Who vouches for the cloud.
    pub(super) authority: Arc<Authority>,
    /// Who vouches for whatever a proxy says, and is trusted by this machine.
    pub(super) filter: Arc<Authority>,
    seed: u64,
    began: Instant,
    diary: Arc<Mutex<Vec<String>>>,
}

/// Tells a story twice; it must come out the same. Gives its diary.
#[track_caller]
pub(super) fn tell<F>(seed: u64, story: impl Fn(World) -> F) -> Vec<String>
where
    F: Future<Output = ()>,
{
    let tell = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new(seed);
            story(world.clone()).await;
            world.diary.lock().unwrap().clone()
        })
    };
    let told = tell();
    assert_eq!(told, tell(), "the same seed told another story");
    told
}

impl World {
    fn new(seed: u64) -> Self {
        let network = Network::new(Random::seeded(seed));
        let names = Names::over(network.at(Host::Agent));
        names.answer(CLOUD, Answer::At(vec!["192.0.2.1".parse().unwrap()]));
        Self {
            network,
            names,
            clock: Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap()),
            authority: Arc::new(Authority::new("Cloud CA")),
            filter: Arc::new(Authority::new("Web Filter CA")),
            seed,
            began: Instant::now(),
            diary: Arc::default(),
        }
    }

    /// Writes into the diary.
    pub(super) fn note(&self, what: impl Display) {
        let at = self.began.elapsed().as_micros();
        self.diary.lock().unwrap().push(format!("{at} {what}"));
    }

    /// How many lines of the diary hold these words.
    pub(super) fn noted(&self, words: &str) -> usize {
        self.diary.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// When the diary's last line with these words was written, since the beginning.
    pub(super) fn last(&self, words: &str) -> Duration {
        let diary = self.diary.lock().unwrap();
        let line = diary.iter().rfind(|line| line.contains(words)).unwrap();
        Duration::from_micros(line.split(' ').next().unwrap().parse().unwrap())
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) async fn listen(&self, port: u16) -> Box<dyn Listener> {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        self.network.at(Host::Cloud).listen(address).await.unwrap()
    }

    /// A link to the cloud.
    pub(super) fn link(&self) -> Agent {
        self.link_by(Route::to(CLOUD_URL).unwrap())
    }

    pub(super) fn link_by(&self, route: Route) -> Agent {
        self.link_with(route, None, self.seed)
    }

    pub(super) fn link_with(&self, route: Route, pins: Option<Pins>, seed: u64) -> Agent {
        let trust = Trust::private(self.authority.roots()).beside(self.filter.roots()).pinned(pins);
        let tls = Arc::new(trust.client_config().unwrap());
        let settings = Settings::new(CLOUD_URL, &Private::new("sesame"), tls).unwrap().by(route);
        let net = Arc::new(self.names.clone());
        let link = latchd::link::start(settings, net, self.clock.clone(), Random::seeded(seed));
        Agent { world: self.clone(), link }
    }
}

/// The agent's end of a link.
pub(super) struct Agent {
    world: World,
    pub(super) link: Link,
}

/// What an agent is told.
#[derive(Debug)]
pub(super) enum Told {
    Up { further: Option<String> },
    Down(Trouble),
    GaveUp(Trouble),
}

impl Agent {
    /// What is told next; the link's questions are answered meanwhile.
    pub(super) async fn told(&mut self, within: Duration) -> Told {
        let told = async {
            loop {
                match self.link.events.recv().await.expect("the link lives") {
                    Event::Connecting(answer) => drop(answer.send(hello())),
                    Event::Up { further, connection, .. } => {
                        self.world.note(format!("up {connection} {further:?}"));
                        return Told::Up { further };
                    }
                    Event::Down(trouble) => {
                        self.world.note(format!("down {}", trouble.code));
                        return Told::Down(trouble);
                    }
                    Event::GaveUp(trouble) => {
                        self.world.note(format!("gave up {}", trouble.code));
                        return Told::GaveUp(trouble);
                    }
                    Event::Frame { .. } => {}
                }
            }
        };
        timeout(within, told).await.unwrap_or_else(|_| panic!("nothing is told within {within:?}"))
    }

    /// The link comes up within this, whatever it says before.
    pub(super) async fn up(&mut self, within: Duration) -> Option<String> {
        let until = self.world.now() + within;
        loop {
            match self.told(until.saturating_sub(self.world.now())).await {
                Told::Up { further } => return further,
                Told::Down(_) => {}
                Told::GaveUp(trouble) => panic!("{trouble:?}"),
            }
        }
    }

    /// The next thing told is that there is no connection, for this reason.
    pub(super) async fn down(&mut self, code: &str, within: Duration) -> String {
        match self.told(within).await {
            Told::Down(trouble) => {
                assert_eq!(trouble.code, code, "{}", trouble.message);
                assert!(!trouble.message.contains("sesame"), "{}", trouble.message);
                trouble.message
            }
            other => panic!("{code} is due: {other:?}"),
        }
    }

    pub(super) async fn gave_up(&mut self, code: &str) {
        match self.told(BOUND).await {
            Told::GaveUp(trouble) => assert_eq!(trouble.code, code, "{}", trouble.message),
            other => panic!("{code} is due: {other:?}"),
        }
        assert!(self.link.events.recv().await.is_none(), "nothing follows the last word");
    }

    /// Nothing is told for this long: the connection stands.
    pub(super) async fn stands(&mut self, span: Duration) {
        if let Ok(event) = timeout(span, self.link.events.recv()).await {
            panic!("{event:?}");
        }
    }
}

fn hello() -> Hello {
    Hello {
        versions: vec![1],
        agent: "test".into(),
        orders_received: Position::default(),
        reports_sent: Position::default(),
        reports_acknowledged: Position::default(),
        orders_limit: 10,
    }
}

/// A certificate authority and what it signs.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// TLS for a server with this name, valid in these years.
    pub(super) fn acceptor(&self, name: &str, years: std::ops::Range<i32>) -> TlsAcceptor {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
