//! Keys of links: what the daemon does when a peer wants its link encrypted, and whom it asks before.

use std::time::Instant;

use dbus::Message;
use uuid::Uuid;

use super::{
    super::world::{Agent, Pairing},
    *,
};

const DOES_NOT_EXIST: &str = "org.bluez.Error.DoesNotExist";

/// Who may be asked.
#[derive(Default)]
pub(super) struct Agents {
    /// One for each client.
    registered: Vec<Agent>,
    /// Clients that want to be asked first; the last of them is.
    first: Vec<String>,
}

impl Agents {
    pub(super) fn count(&self) -> usize {
        self.registered.len()
    }

    /// Who is asked where nobody in particular is to be.
    fn default(&self) -> Option<&Agent> {
        let client = self.first.last()?;
        self.registered.iter().find(|agent| agent.client == *client)
    }

    pub(super) fn left(&mut self, client: &str) {
        self.registered.retain(|agent| agent.client != client);
        self.first.retain(|first| first != client);
    }

    pub(super) fn called(&mut self, member: &str, message: &Message) -> Answer {
        let client = sender(message);
        let Some(path) = message.get1::<dbus::Path<'_>>().map(|path| path.to_string()) else {
            return refuse("org.bluez.Error.InvalidArguments", "Invalid arguments in method call");
        };
        let is_known = self.registered.iter().any(|agent| agent.client == client && agent.path == path);
        match member {
            "RegisterAgent" if self.registered.iter().any(|agent| agent.client == client) => {
                return refuse("org.bluez.Error.AlreadyExists", "Already Exists");
            }
            "RegisterAgent" => self.registered.push(Agent { client, path }),
            _ if !is_known => return refuse(DOES_NOT_EXIST, "Does Not Exist"),
            "RequestDefaultAgent" => {
                self.first.retain(|first| *first != client);
                self.first.push(client);
            }
            "UnregisterAgent" => self.left(&client),
            _ => return refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
        }
        Ok(Some(message.method_return()))
    }
}

impl Daemon {
    /// Whether an error of a peer's makes the daemon encrypt the link.
    pub(super) fn encrypts(&self, at: usize, att: AttError) -> bool {
        let is_wanted = matches!(att.0, INSUFFICIENT_AUTHENTICATION | 0x0C | 0x0F);
        is_wanted && !self.devices[at].encrypted && (self.devices[at].paired || self.adapter.pairs)
    }

    /// Holds a call back until the link is encrypted; a key is agreed on where there is none.
    pub(super) fn encrypt(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let (path, epoch) = (self.path(at), self.devices[at].epoch);
        let held_back = kept(message).map(|message| (uuid, message));
        if let Some(pairing) = &mut self.devices[at].pairing {
            pairing.held_back.extend(held_back);
            return Ok(None);
        }
        let now = Instant::now();
        let until = now + self.timing.silence;
        let mut asked = None;
        if self.devices[at].paired {
            self.agenda.put(now + self.timing.pair, Later::Encrypted { device: at, epoch });
        } else {
            asked = self.agents.default().cloned().and_then(|agent| {
                let question = agent_call(&agent, "RequestAuthorization")?;
                let question = question.append1(dbus::Path::new(path).ok()?);
                Some((agent, self.channel.as_ref()?.send(question).ok()?))
            });
            self.agenda.put(until, Later::PairingEnds { device: at, epoch });
        }
        let held_back = held_back.into_iter().collect();
        self.devices[at].pairing = Some(Pairing { asked, until, held_back });
        Ok(None)
    }

    /// An answer to a call of the daemon's own.
    pub(super) fn answered(&mut self, message: &Message, yes: bool) {
        let (client, serial) = (sender(message), message.get_reply_serial());
        let asked = |device: &Device| {
            let asked = device.pairing.as_ref().and_then(|pairing| pairing.asked.as_ref());
            asked.is_some_and(|(agent, call)| agent.client == client && Some(*call) == serial)
        };
        let Some(at) = self.devices.iter().position(asked) else { return };
        if yes {
            let epoch = self.devices[at].epoch;
            self.agenda.put(Instant::now() + self.timing.pair, Later::Encrypted { device: at, epoch });
        } else {
            self.pairing_failed(at);
        }
    }

    pub(super) fn is_encrypted(&mut self, at: usize, epoch: u64) {
        let path = self.path(at);
        let device = &mut self.devices[at];
        if device.epoch != epoch {
            return;
        }
        let Some(pairing) = device.pairing.take() else { return };
        device.encrypted = true;
        if !std::mem::replace(&mut device.paired, true) {
            for property in ["Bonded", "Paired"] {
                self.changed(&path, DEVICE, Self::one(property, variant(true)), &[]);
            }
        }
        for (uuid, call) in pairing.held_back {
            let is_read = call.member().is_some_and(|member| &*member == "ReadValue");
            let answer = if is_read { self.read(at, uuid, &call) } else { self.write(at, uuid, &call) };
            self.answer(&call, answer);
        }
    }

    /// Nobody said yes.
    fn pairing_failed(&mut self, at: usize) {
        if let Some(pairing) = self.devices[at].pairing.take() {
            for (_, call) in pairing.held_back {
                self.send(error(&call, NOT_PERMITTED, NOT_PAIRED));
            }
        }
    }

    /// Nobody could be asked, or whoever was says nothing: the link goes, and what was held back is never answered. A device
    /// is also forgotten where there was nobody to ask.
    pub(super) fn pairing_took_too_long(&mut self, at: usize, epoch: u64) {
        if self.devices[at].epoch != epoch {
            return;
        }
        let Some(pairing) = &mut self.devices[at].pairing else { return };
        if Instant::now() < pairing.until {
            return;
        }
        pairing.held_back.clear();
        let nobody = pairing.asked.is_none();
        self.drop_link(at);
        if nobody {
            self.forget(at);
        }
    }

    /// The link is gone on which a key was to be agreed on.
    pub(super) fn pairing_is_over(&mut self, at: usize) {
        let Some(pairing) = self.devices[at].pairing.take() else { return };
        if let Some(mut call_off) = pairing.asked.and_then(|(agent, _)| agent_call(&agent, "Cancel")) {
            call_off.set_no_reply(true);
            self.send(call_off);
        }
        for (_, call) in pairing.held_back {
            self.send(error(&call, FAILED, LINK_LOST));
        }
    }

    /// A client is gone that may have been asked.
    pub(super) fn agent_left(&mut self, client: &str) {
        self.agents.left(client);
        for at in 0..self.devices.len() {
            let asked = self.devices[at].pairing.as_ref().and_then(|pairing| pairing.asked.as_ref());
            if asked.is_some_and(|(agent, _)| agent.client == client) {
                self.pairing_failed(at);
            }
        }
    }
}

fn agent_call(agent: &Agent, member: &str) -> Option<Message> {
    Message::new_method_call(&agent.client, &agent.path, "org.bluez.Agent1", member).ok()
}
