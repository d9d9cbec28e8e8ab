//! Who is asked before the daemon agrees on a key with a peripheral that wants its link encrypted.
//!
//! Where nobody can be asked the daemon answers nothing, ends the link in the end and forgets the peripheral. The only
//! question that is ever answered with yes is whether a key may be agreed on without a person, and only about a peripheral
//! that this process connects to at that moment: nobody else is let near the machine by that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use btleplug::platform::PeripheralId;
use dbus::{
    Message, Path,
    channel::{MatchingReceiver, Sender, Token},
    message::MatchRule,
    nonblock::{Proxy, SyncConnection},
};

const PLACE: &str = "/org/latchd/agent";
const AGENT: &str = "org.bluez.Agent1";
const MANAGER: &str = "org.bluez.AgentManager1";
/// Nothing can be shown here, and nothing typed.
const ABILITY: &str = "NoInputNoOutput";
const CALL: Duration = Duration::from_secs(5);
/// For what the end of the connection does as well.
const LEAVE: Duration = Duration::from_secs(1);

/// Where the peripherals stand at the daemon that are meant at present, and by how many connections. It is the whole
/// process's: the daemon asks only one of those who may be asked, whichever radio of this process connects.
static MEANT: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

fn all_meant() -> MutexGuard<'static, BTreeMap<String, u32>> {
    // Each change is whole.
    MEANT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A peripheral is meant as long as this lasts.
#[derive(Debug)]
pub(super) struct Meant(String);

impl Meant {
    pub(super) fn new(id: &PeripheralId) -> Self {
        // `hci0/dev_C0_FF_EE_00_00_01`
        Self::at(format!("/org/bluez/{id}"))
    }

    fn at(place: String) -> Self {
        *all_meant().entry(place.clone()).or_default() += 1;
        Self(place)
    }
}

impl Drop for Meant {
    fn drop(&mut self) {
        let mut all = all_meant();
        if let Some(times) = all.get_mut(&self.0) {
            *times -= 1;
            if *times == 0 {
                all.remove(&self.0);
            }
        }
    }
}

/// One that is registered at the daemon, until it is unregistered or its connection to the bus ends.
pub(super) struct Agent {
    connection: Arc<SyncConnection>,
    questions: Token,
}

impl Agent {
    /// Offers to be asked, and to be asked first.
    pub(super) async fn register(connection: Arc<SyncConnection>) -> Result<Self, dbus::Error> {
        let rule = MatchRule::new_method_call().with_path(PLACE).with_interface(AGENT);
        let questions = connection.start_receive(
            rule,
            Box::new(|question, connection| {
                let answer = answer(&question);
                if !question.get_no_reply() {
                    // The bus is gone then, which its watch tells.
                    let _ = connection.send(answer);
                }
                true
            }),
        );
        let agent = Self { connection, questions };
        let manager = agent.manager(CALL);
        let () = manager.method_call(MANAGER, "RegisterAgent", (Path::from(PLACE), ABILITY)).await?;
        let () = manager.method_call(MANAGER, "RequestDefaultAgent", (Path::from(PLACE),)).await?;
        Ok(agent)
    }

    fn manager(&self, within: Duration) -> Proxy<'static, Arc<SyncConnection>> {
        Proxy::new("org.bluez", "/org/bluez", within, self.connection.clone())
    }

    /// Is asked no more.
    pub(super) async fn unregister(self) {
        let gone: Result<(), _> =
            self.manager(LEAVE).method_call(MANAGER, "UnregisterAgent", (Path::from(PLACE),)).await;
        if let Err(error) = gone {
            tracing::debug!(%error, "the agent could not be unregistered");
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.connection.stop_receive(self.questions);
    }
}

fn answer(question: &Message) -> Message {
    let member = question.member().map(|member| member.to_string()).unwrap_or_default();
    match member.as_str() {
        "Release" | "Cancel" => return question.method_return(),
        "RequestAuthorization" => {
            let about = question.get1::<Path<'_>>().map(|path| path.to_string()).unwrap_or_default();
            if all_meant().contains_key(&about) {
                tracing::info!(peripheral = about, "a key for the link is agreed on");
                return question.method_return();
            }
        }
        _ => {}
    }
    tracing::debug!(member, "somebody who is not meant wants a key, or a person");
    question.error(&"org.bluez.Error.Rejected".into(), c"not expected here")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01";
    const STRANGER: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_02";

    fn is_yes(member: &str, about: &str) -> bool {
        let mut question = Message::new_method_call(":1.7", PLACE, AGENT, member).unwrap();
        question = question.append1(Path::from(about.to_owned()));
        question.set_serial(7);
        answer(&question).as_result().is_ok()
    }

    #[test]
    fn only_who_is_meant_is_agreed_with_for_as_long_as_it_is_and_only_without_a_person() {
        assert!(!is_yes("RequestAuthorization", DOOR));
        let once = Meant::at(DOOR.into());
        let twice = Meant::at(DOOR.into());
        assert!(is_yes("RequestAuthorization", DOOR) && !is_yes("RequestAuthorization", STRANGER));
        for member in [
            "RequestConfirmation",
            "RequestPinCode",
            "RequestPasskey",
            "DisplayPinCode",
            "DisplayPasskey",
            "AuthorizeService",
            "RequestSomethingNew",
        ] {
            assert!(!is_yes(member, DOOR), "{member}");
        }
        assert!(is_yes("Cancel", DOOR) && is_yes("Release", DOOR));
        drop(once);
        assert!(is_yes("RequestAuthorization", DOOR));
        drop(twice);
        assert!(!is_yes("RequestAuthorization", DOOR));
    }

    #[test]
    fn a_question_about_nothing_is_refused() {
        let mut question = Message::new_method_call(":1.7", PLACE, AGENT, "RequestAuthorization").unwrap();
        question.set_serial(7);
        assert!(answer(&question).as_result().is_err());
    }
}
