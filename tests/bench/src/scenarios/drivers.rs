//! What the drivers themselves cost: one lock server that needs 300 ms for each card, and cards on eight encoders.
//!
//! The lock server here knows the fewest bytes of each protocol that make a card; it answers each command once the card's
//! time is over. Two things are measured of each driver, of real time:
//!
//! - *Busy*: the least that the protocol allows (encoders side by side where it has them so, else one card after the other)
//!   against the time that the driver needs for all cards.
//! - *Overhead*: a card that takes no time, against the floor, which makes the same connections and sends and awaits the
//!   very bytes that the driver sent and awaited, without a driver.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use latchd::{
    config::{AgentConfig, DriverConfig},
    drivers::{
        Driver, Line, Past, Performed, Work, kaba_messenger::KabaMessenger, salto_is::SaltoIs,
        visionline::Visionline,
    },
    model::{
        AccessMethodId, CardEncode, DoorName, EncoderName, JobId, Order, Outcome, ReservationKey, Treatment,
        Window,
    },
    seams::{Clock, Random, SystemNet},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{PATIENCE, runtime, soon};
use crate::{
    Options,
    judge::{Check, Goal, Paired, Samples},
};

/// How long a card takes.
const CARD: Duration = Duration::from_millis(300);
const ENCODERS: u32 = 8;
/// Cards an encoder.
const EACH: u32 = 4;
/// Cards of a block, driver and floor in turns.
const BLOCK: u32 = 100;

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    for make in [Make::Salto, Make::Visionline, Make::Messenger] {
        checks.push(runtime()?.block_on(busy(make, options))?);
        checks.extend(runtime()?.block_on(overhead(make, options))?);
    }
    Ok(checks)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Make {
    Salto,
    Visionline,
    Messenger,
}

/// How much of its time the lock server was at work that it could have been.
async fn busy(make: Make, options: &Options) -> anyhow::Result<Check> {
    let site = Site::open(make, CARD, options).await?;
    // One card first: connections are made, and what is asked once was asked.
    site.card(1, 0).await?;
    let is_parallel = site.driver.inventory().capabilities.parallel_encoders;
    let began = Instant::now();
    if is_parallel {
        let encoder = |number| {
            let site = &site;
            async move {
                for n in 1..=EACH {
                    site.card(number, n).await?;
                }
                anyhow::Ok(())
            }
        };
        futures_util::future::try_join_all((1..=ENCODERS).map(encoder)).await?;
    } else {
        for n in 1..=EACH {
            for number in 1..=ENCODERS {
                site.card(number, n).await?;
            }
        }
    }
    let took = began.elapsed();
    let in_turn = if is_parallel { EACH } else { EACH * ENCODERS };
    let least = CARD * in_turn;
    let how = if is_parallel { "side by side" } else { "over one line" };
    let what = format!("{}: {} cards on {ENCODERS} encoders, {how}, busy", make.name(), EACH * ENCODERS);
    let ratio = least.as_secs_f64() / took.as_secs_f64();
    Ok(Check::new("-", what, ratio * 100.0, "%", Goal::AtLeast(95.0)))
}

/// What a card costs that takes no time, with the driver and without.
async fn overhead(make: Make, options: &Options) -> anyhow::Result<[Check; 2]> {
    let site = Site::open(make, Duration::ZERO, options).await?;
    let mut n = 0;
    for _ in 0..BLOCK {
        n += 1;
        site.card(1, n).await?;
    }
    // The last card's bytes, as the floor says them again.
    let tape = site.tape.take();
    ensure!(!tape.is_empty(), "{}: nothing was asked for a card", make.name());
    let mut floor = Floor { address: site.address.clone(), line: None };
    let mut paired = Paired::default();
    let mut more = Vec::new();
    for _ in 0..options.rounds {
        let (mut bare, mut whole) = (Samples::default(), Samples::default());
        for _ in 0..BLOCK {
            let began = Instant::now();
            floor.card(make, &tape).await?;
            bare.push(began.elapsed());
        }
        for _ in 0..BLOCK {
            n += 1;
            let began = Instant::now();
            site.card(1, n).await?;
            whole.push(began.elapsed());
        }
        more.push(whole.p50() - bare.p50());
        paired.round(bare, whole);
    }
    let above = crate::judge::median(&more);
    let name = make.name();
    Ok([
        Check::told("-", format!("{name}: the driver, above the bare exchange"), above, "us"),
        paired.check("-", format!("{name}: a card, against the bare exchange"), Goal::Told),
    ])
}

impl Make {
    fn name(self) -> &'static str {
        match self {
            Self::Salto => "salto_is",
            Self::Visionline => "visionline",
            Self::Messenger => "kaba_messenger",
        }
    }

    fn section(self, address: &str, folder: &Path) -> String {
        let line = match self {
            Self::Salto | Self::Visionline => format!("line = {{ tcp = \"{address}\" }}"),
            Self::Messenger => format!(
                "product = \"saflok\"\nurl = \"http://{address}/x.asmx\"\nuser = \"pms\"\npassword_file = \"{}\"",
                folder.join("password").display()
            ),
        };
        let names = |first: u32| (first..first + ENCODERS).map(|n| format!("\"{n}\"")).collect::<Vec<_>>();
        format!(
            "[site]\nname = \"Bench\"\ntime_zone = \"Europe/Oslo\"\n[storage]\nfolder = \"{}\"\n[[system]]\n\
             name = \"bench\"\nkind = \"{}\"\nexclusive = true\n{line}\nencoders = [{}]\nrooms = [{}]\n",
            folder.display(),
            self.name(),
            names(1).join(", "),
            names(101).join(", "),
        )
    }
}

/// A driver and the lock server that it speaks to.
struct Site {
    driver: Arc<dyn Driver>,
    address: String,
    tape: Tape,
    _server: tokio::task::JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn open(make: Make, card: Duration, options: &Options) -> anyhow::Result<Self> {
        let folder = options.scratch()?;
        let password = folder.path().join("password");
        fs::write(&password, "secret")?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let tape = Tape::default();
        let mut server = tokio::task::JoinSet::new();
        server.spawn(serve(make, listener, card, tape.clone()));
        let text = make.section(&address, folder.path());
        let mut config = AgentConfig::from_toml(Path::new("/latchd.toml"), &text)
            .map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let system = config.systems.remove(0);
        let (net, zone) = (Arc::new(SystemNet), TimeZone::get("Europe/Oslo")?);
        let (clock, random) = (Clock::system(), Random::system());
        let name = system.name;
        let driver: Arc<dyn Driver> = match &system.driver {
            DriverConfig::SaltoIs(it) => {
                Arc::new(SaltoIs::start_over(net, it, name, zone, Past::Answered, clock, random))
            }
            DriverConfig::Visionline(it) => {
                Arc::new(Visionline::start_over(net, it, name, zone, Past::Answered, clock, random))
            }
            DriverConfig::KabaMessenger(it) => {
                Arc::new(KabaMessenger::start_over(net, it, name, zone, Past::Answered, clock, random))
            }
            DriverConfig::Ble(_)
            | DriverConfig::Igloohome(_)
            | DriverConfig::Uhppote(_)
            | DriverConfig::CardReader(_)
            | DriverConfig::SimLock(_) => {
                anyhow::bail!("keypad locks make no cards")
            }
        };
        let mut line = driver.line();
        soon("an open line", async { line.wait_for(|line| *line == Line::Ready).await.ok().map(drop) })
            .await?;
        Ok(Self { driver, address, tape, _server: server, _folder: folder })
    }

    /// One card, begun and ended.
    async fn card(&self, encoder: u32, n: u32) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let window =
            Window::new(now - SignedDuration::from_hours(1), Some(now + SignedDuration::from_hours(48)))?;
        let card = CardEncode {
            encoder: EncoderName::new(encoder.to_string())?,
            doors: vec![DoorName::new((100 + encoder).to_string())?],
            reservation_key: Some(ReservationKey::new(format!("{encoder}-{n}"))?),
            window,
            access_method_id: AccessMethodId(Uuid::from_u128(u128::from(encoder * 1_000_000 + n))),
            guest_name: None,
            card_wait_seconds: 60,
            begin_again: false,
        };
        let job_id = JobId(Uuid::from_u128(u128::from(n)));
        let (order, treatment) = (Order::CardEncode(card), Treatment::Override);
        let work = Work { job_id, order, treatment, to_see: None, slot: None };
        let progress = |_stage| ();
        let performed = timeout(PATIENCE, self.driver.perform(work, &progress)).await;
        let performed = performed.context("a card took too long")?;
        ensure!(matches!(performed, Performed::Ended(Outcome::Succeeded(_))), "{performed:?}");
        Ok(())
    }
}

/// What the client of the last card said on each connection, and how many bytes it was answered.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<VecDeque<Exchange>>>);

#[derive(Clone)]
struct Exchange {
    says: Vec<u8>,
    hears: usize,
}

impl Tape {
    /// A card began: what was said before is another one's.
    fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, says: &[u8], hears: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(Exchange { says: says.to_vec(), hears });
    }

    fn take(&self) -> Vec<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

/// The bare exchange.
struct Floor {
    address: String,
    /// Kept where the protocol keeps it.
    line: Option<TcpStream>,
}

impl Floor {
    async fn card(&mut self, make: Make, tape: &[Exchange]) -> anyhow::Result<()> {
        let mut heard = vec![0; 64 * 1024];
        for exchange in tape {
            let mut line = match self.line.take() {
                Some(line) => line,
                None => {
                    let line = TcpStream::connect(&self.address).await?;
                    line.set_nodelay(true)?;
                    line
                }
            };
            line.write_all(&exchange.says).await?;
            let heard = &mut heard[..exchange.hears];
            timeout(PATIENCE, line.read_exact(heard)).await.context("the lock server says nothing")??;
            if make == Make::Salto {
                self.line = Some(line);
            }
        }
        Ok(())
    }
}

async fn serve(make: Make, listener: TcpListener, card: Duration, tape: Tape) {
    let mut clients = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let tape = tape.clone();
        clients.spawn(async move {
            let _nodelay = stream.set_nodelay(true);
            // The client ends it.
            let _ended = match make {
                Make::Salto => salto(stream, card, &tape).await,
                Make::Visionline => visionline(stream, card, &tape).await,
                Make::Messenger => messenger(stream, card, &tape).await,
            };
        });
    }
}

/// `05` is answered by `06`, a frame by `06` and, a card later, its answer.
async fn salto(mut stream: TcpStream, card: Duration, tape: &Tape) -> std::io::Result<()> {
    loop {
        match stream.read_u8().await? {
            0x05 => {
                tape.begin();
                tape.note(&[0x05], 1);
                stream.write_all(&[0x06]).await?;
            }
            0x02 => {
                let mut frame = vec![0x02];
                while frame.last() != Some(&0x03) {
                    frame.push(stream.read_u8().await?);
                }
                frame.push(stream.read_u8().await?);
                stream.write_all(&[0x06]).await?;
                sleep_for(card).await;
                let mut fields = frame.split(|byte| *byte == 0xb3).skip(1);
                let (command, encoder) = (fields.next().unwrap_or(b""), fields.next().unwrap_or(b""));
                let mut answer = [&[0x02, 0xb3], command, &[0xb3], encoder, &[0xb3, 0x03]].concat();
                answer.push(answer[1..].iter().fold(0, |sum, byte| sum ^ byte));
                tape.note(&frame, 1 + answer.len());
                stream.write_all(&answer).await?;
            }
            // The final acknowledgement.
            _ => {}
        }
    }
}

/// A line is answered a card later; a reading sees a blank card at once.
async fn visionline(mut stream: TcpStream, card: Duration, tape: &Tape) -> std::io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    let encoder = text.split(';').find(|item| item.starts_with("EA")).unwrap_or("EA1");
    let answer = match text.starts_with("CCA;") {
        true => {
            sleep_for(card).await;
            format!("CCA;{encoder};RC0;SR04A1B2C3D4E580FF;\r\n")
        }
        false => {
            tape.begin();
            format!("CCB;{encoder};RC43;\r\n")
        }
    };
    tape.note(&line, answer.len());
    stream.write_all(answer.as_bytes()).await?;
    let _closed_by_the_client = stream.read_u8().await;
    Ok(())
}

/// A request over HTTP: what makes a card is answered a card later, everything else at once.
async fn messenger(mut stream: TcpStream, card: Duration, tape: &Tape) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let whole = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                break text.into_owned();
            }
        }
    };
    let makes_card = ["CreateNewBooking", "AddSharedGuest", "MakeDuplicateKey"];
    let is_card = makes_card.iter().any(|name| whole.contains(&format!("<t:{name} ")));
    if is_card {
        tape.begin();
        sleep_for(card).await;
    }
    let body = "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body><HelloWorldTestResponse/>\
                <R><X><bSuccess>true</bSuccess><ResponseCode>0</ResponseCode>\
                <ResponseMessage>Success</ResponseMessage></X></R></e:Body></e:Envelope>";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    if is_card {
        tape.note(&bytes, answer.len());
    }
    stream.write_all(answer.as_bytes()).await?;
    let _closed_by_the_client = stream.read_u8().await;
    Ok(())
}

/// Nothing is waited for that takes no time.
async fn sleep_for(card: Duration) {
    if !card.is_zero() {
        sleep(card).await;
    }
}
