//! The server: whether it can be used, what it says of itself, and the exchange of one command.
//!
//! Every request has a connection of its own. While nobody asks for anything the service is looked at now and then, with
//! an operation that changes nothing; a command that finds nobody, or is not answered, has it looked at again at once.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jiff::{ToSpan, civil::DateTime, tz::TimeZone};
use tokio::{
    select,
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    answer::{self, Presence},
    codec::{self, CONTENT_TYPE, Header},
    command::Command,
    fault::meaning,
    session::{self, Result as Came},
    wsdl,
};
use crate::{
    config::{COMMUNITY, KabaMessengerConfig, KabaProduct},
    drivers::{Line, Trouble, password},
    model::{Code, Refusal, SystemName},
    seams::{Clock, Net, Random},
    transport::http::{self, Ask, Client, Connection, Limits, Method},
};

/// The first wait before looking again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a service that is ready is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long it may take for what changes nothing.
const LOOK_WITHIN: Duration = Duration::from_secs(15);
/// How much longer an answer may take that is coming in: somebody speaks, and what he says is worth more than a doubt.
const REST_OF_ANSWER: Duration = Duration::from_secs(180);
/// How long a message is fresh, as another client of this service has it: server clocks differ.
const FRESH_HOURS: i64 = 24;
/// Who asks.
const FROM: &str = "LATCHD";

/// The server, shared by the driver and the task that looks after it.
pub(super) struct Server {
    system: SystemName,
    config: KabaMessengerConfig,
    net: Arc<dyn Net>,
    /// Made when what it needs can be read.
    client: OnceLock<Client>,
    time_zone: TimeZone,
    clock: Clock,
    random: Random,
    line: watch::Sender<Line>,
    /// Tells the task that the service may not be there.
    doubted: Notify,
    remark: Mutex<Option<Trouble>>,
}

/// Why the service cannot be used: a stable name, and words for a person.
pub(super) type Why = (&'static str, String);

impl Server {
    pub(super) fn new(
        net: Arc<dyn Net>,
        config: &KabaMessengerConfig,
        system: SystemName,
        time_zone: TimeZone,
        clock: Clock,
        random: Random,
    ) -> Self {
        Self {
            system,
            net,
            client: OnceLock::new(),
            config: config.clone(),
            time_zone,
            clock,
            random,
            line: watch::Sender::new(Line::Opening),
            doubted: Notify::new(),
            remark: Mutex::default(),
        }
    }

    pub(super) fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    /// What is odd about the service.
    pub(super) fn remark(&self) -> Option<Trouble> {
        self.remark.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the clock on the property's wall shows, to the second.
    pub(super) fn local_now(&self) -> DateTime {
        let now = self.time_zone.to_datetime(self.clock.now());
        now.with().subsec_nanosecond(0).build().unwrap_or(now)
    }

    /// Looks after the service until the driver is gone.
    pub(super) async fn keep(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let gone = async { while stopping.changed().await.is_ok() {} };
        select! {
            biased;
            () = gone => {}
            () = self.look_again_and_again() => {}
        }
    }

    async fn look_again_and_again(&self) {
        let mut wait = FIRST_WAIT;
        let mut compared = false;
        loop {
            let looked = self.look().await;
            if self.config.product == KabaProduct::Community {
                self.publish_down("interface_document_needed", probed(&looked));
                sleep(LOOK_EVERY).await;
                continue;
            }
            match looked {
                Ok(()) => {
                    if !compared {
                        compared = true;
                        self.compare().await;
                        self.log_reasons().await;
                    }
                    wait = FIRST_WAIT;
                    self.publish(Line::Ready);
                    let _either_way = timeout(LOOK_EVERY, self.doubted.notified()).await;
                }
                Err((code, message)) => {
                    // What stands there next may be another version.
                    compared = false;
                    self.publish_down(code, message);
                    let jitter = Duration::from_millis(self.random.below(wait.as_millis() as u64 / 4));
                    sleep(wait + jitter).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Whether the service is there and takes our credentials.
    async fn look(&self) -> Result<(), Why> {
        let heard = self.ask_for(&Command::HelloWorldTest).await?;
        let url = &self.config.http.url;
        match answer::presence(heard.status, &heard.body) {
            Presence::There => Ok(()),
            Presence::NotLetIn(why) => Err((
                "auth_refused",
                format!(
                    "{url} does not let the user {:?} in ({why}): mend `user` and `password_file`",
                    self.config.user
                ),
            )),
            Presence::NoService(why) => Err((
                "not_messenger",
                format!("{url} does not answer as Messenger's service ({why}): mend `url`"),
            )),
        }
    }

    /// Compares what the service says of itself with what this driver was written from.
    async fn compare(&self) {
        let remark = match self.ask(self.description()).await {
            Ok(heard) if heard.status == 200 => match wsdl::compare(&heard.body) {
                Ok(difference) if difference.is_none() => None,
                Ok(difference) => Some(("messenger_differs", difference.to_string())),
                Err(error) => {
                    Some(("messenger_not_compared", format!("its description cannot be read: {error}")))
                }
            },
            Ok(heard) => Some((
                "messenger_not_compared",
                format!("it does not show its description (HTTP {} for ?wsdl)", heard.status),
            )),
            Err((_, why)) => {
                Some(("messenger_not_compared", format!("it does not show its description: {why}")))
            }
        };
        let remark = remark.map(|(code, what)| {
            tracing::warn!(system = %self.system, code, what, "the service is not known to be as expected");
            let message = format!("{}: {what}", self.config.http.url);
            Trouble { code, message, since: self.clock.now() }
        });
        *self.remark.lock().unwrap_or_else(PoisonError::into_inner) = remark;
    }

    /// Writes down the reasons that the service may give and that mean nothing here.
    async fn log_reasons(&self) {
        let Ok(heard) = self.ask_for(&Command::PublishFaultList).await else { return };
        let reasons = answer::fault_list(&heard.body);
        let unknown: Vec<_> = reasons.iter().filter(|name| meaning(name).is_none()).collect();
        tracing::info!(system = %self.system, reasons = reasons.len(), ?unknown, "the service's list of faults");
    }

    /// Has a command done, if the stop does not come before it leaves. `leaves` is called right before it does.
    pub(super) async fn perform(
        &self,
        command: &Command,
        within: Duration,
        mut stopping: watch::Receiver<bool>,
        leaves: impl FnOnce(),
    ) -> Came {
        let unsent = |code, message: String| Came::NothingSent(Refusal::new(code, message));
        let ask = match self.post(command) {
            Ok(ask) => ask,
            Err((_, why)) => return unsent(Code::Auth, why),
        };
        let connection = select! {
            biased;
            // First: a command must not leave after the stop was told.
            _ = stopping.wait_for(|stop| *stop) => {
                return unsent(Code::SystemOffline, "latchd is stopping; nothing new is begun".into());
            }
            connection = self.connect() => connection,
        };
        let connection = match connection {
            Ok(connection) => connection,
            Err((code, message)) => {
                self.lost(code, message.clone());
                return unsent(Code::SystemOffline, message);
            }
        };
        leaves();
        let came = connection.ask(ask, within).await;
        if let Err(error) = &came {
            self.lost(error.why.code(), error.to_string());
        }
        session::ended(command, &came)
    }

    /// What asks. A file of the configuration that was wrong or missing is read again until it is right.
    fn client(&self) -> Result<&Client, Why> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let connections = self.config.encoders.len() + 2;
        let limits = Limits { connections, rest: REST_OF_ANSWER, ..Limits::default() };
        let client = Client::new(Arc::clone(&self.net), &self.config.http, limits)
            .map_err(|error| ("line_config", error.to_string()))?;
        Ok(self.client.get_or_init(|| client))
    }

    async fn connect(&self) -> Result<Connection, Why> {
        self.client()?.connect().await.map_err(|error| (error.why.code(), error.to_string()))
    }

    /// Asks what changes nothing.
    pub(super) async fn ask_for(&self, command: &Command) -> Result<http::Answer, Why> {
        self.ask(self.post(command)?).await
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<http::Answer, Why> {
        let connection = self.connect().await?;
        connection.ask(ask, LOOK_WITHIN).await.map_err(|error| (error.why.code(), error.to_string()))
    }

    fn post(&self, command: &Command) -> Result<Ask, Why> {
        let password = password::read(&self.config.password_file).map_err(|why| ("password_file", why))?;
        let created = self.local_now();
        let header = Header {
            from: FROM,
            message_id: self.random.uuid(),
            timestamp_id: self.random.uuid(),
            token_id: self.random.uuid(),
            user: &self.config.user,
            password: &password,
            created,
            expires: created.saturating_add(FRESH_HOURS.hours()),
        };
        Ok(Ask {
            method: Method::POST,
            resource: self.config.http.url.path.clone(),
            headers: vec![("content-type", CONTENT_TYPE.into()), ("soapaction", codec::action(command))],
            body: codec::envelope(command, &header),
        })
    }

    /// Asks for what the service says of itself.
    pub(super) fn description(&self) -> Ask {
        let resource = format!("{}?wsdl", self.config.http.url.path);
        Ask { method: Method::GET, resource, headers: Vec::new(), body: Vec::new() }
    }

    /// A command found nobody or had no answer: the service is looked at before it counts as ready again.
    fn lost(&self, code: &'static str, message: String) {
        self.publish_down(code, message);
        self.doubted.notify_one();
    }

    fn publish_down(&self, code: &'static str, message: String) {
        let since = match &*self.line.borrow() {
            Line::Down(trouble) if trouble.code == code => trouble.since,
            Line::Down(_) | Line::Opening | Line::Ready => self.clock.now(),
        };
        tracing::info!(system = %self.system, code, "the service is not ready");
        self.publish(Line::Down(Trouble { code, message, since }));
    }

    fn publish(&self, line: Line) {
        self.line.send_if_modified(|now| {
            let changed = *now != line;
            *now = line;
            changed
        });
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("system", &self.system).finish_non_exhaustive()
    }
}

/// What there is to say of Community, with what asking its server came to.
fn probed(looked: &Result<(), Why>) -> String {
    match looked {
        Ok(()) => format!(
            "{COMMUNITY}. Its server does answer as Messenger's service: that alone does not say that it makes cards by it"
        ),
        Err((_, why)) => format!("{COMMUNITY}. Messenger's service was asked for, in vain: {why}"),
    }
}
