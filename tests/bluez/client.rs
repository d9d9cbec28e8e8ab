//! A client that speaks to the daemon in plain messages, and keeps everything it hears in the order in which it came.

use std::time::{Duration, Instant};

use dbus::{
    Message, MessageType,
    arg::{AppendAll, PropMap, RefArg},
    channel::Channel,
};

pub const ADAPTER: &str = "/org/bluez/hci0";

/// No answer takes longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A call that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call(u32);

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A property has this value now.
    Changed { path: String, property: String, value: String },
    /// A property has none any more.
    Invalidated { path: String, property: String },
    /// An object is there.
    Added { path: String, interfaces: Vec<String> },
    /// An object is there no more.
    Removed { path: String, interfaces: Vec<String> },
    /// A call was answered.
    Answered(Call),
}

/// An error's name without its prefix, and its text.
pub type Refused = (String, String);

pub struct Client {
    channel: Channel,
    answers: Vec<(Call, Message)>,
    /// Calls to an object of this client's own, unanswered.
    pub asked: Vec<Message>,
    pub heard: Vec<Heard>,
}

impl Client {
    pub fn new(address: &str) -> Self {
        let mut channel = Channel::open_private(address).unwrap();
        channel.register().unwrap();
        let mut client = Self { channel, answers: Vec::new(), asked: Vec::new(), heard: Vec::new() };
        let rule = "type='signal',sender='org.bluez'";
        let bus = "org.freedesktop.DBus";
        let added = client.send(bus, "/org/freedesktop/DBus", bus, "AddMatch", (rule,));
        client.answer(added).unwrap();
        client
    }

    fn send(&self, to: &str, path: &str, interface: &str, member: &str, arguments: impl AppendAll) -> Call {
        let mut call = Message::new_method_call(to, path, interface, member).unwrap();
        call.append_all(arguments);
        Call(self.channel.send(call).unwrap())
    }

    /// Calls the daemon and does not wait.
    pub fn start(&self, path: &str, member: &str, arguments: impl AppendAll) -> Call {
        let interface = match member {
            "Get" | "GetAll" | "Set" => "org.freedesktop.DBus.Properties",
            "GetManagedObjects" => "org.freedesktop.DBus.ObjectManager",
            "Introspect" => "org.freedesktop.DBus.Introspectable",
            "RegisterAgent" | "UnregisterAgent" | "RequestDefaultAgent" => "org.bluez.AgentManager1",
            "Connect" | "Disconnect" => "org.bluez.Device1",
            "ReadValue" | "WriteValue" | "StartNotify" | "StopNotify" => "org.bluez.GattCharacteristic1",
            _ => "org.bluez.Adapter1",
        };
        self.send("org.bluez", path, interface, member, arguments)
    }

    fn take(&mut self, message: Message) {
        let path = message.path().map(|path| path.to_string()).unwrap_or_default();
        match message.msg_type() {
            MessageType::MethodReturn | MessageType::Error => {
                let call = Call(message.get_reply_serial().unwrap());
                self.heard.push(Heard::Answered(call));
                self.answers.push((call, message));
            }
            MessageType::MethodCall => self.asked.push(message),
            MessageType::Signal => match &*message.member().unwrap() {
                "PropertiesChanged" => {
                    let (_, changed, gone): (String, PropMap, Vec<String>) = message.read3().unwrap();
                    let mut changed: Vec<_> = changed.into_iter().collect();
                    changed.sort_by(|(one, _), (other, _)| one.cmp(other));
                    for (property, value) in changed {
                        let value = told(&value.0);
                        self.heard.push(Heard::Changed { path: path.clone(), property, value });
                    }
                    for property in gone {
                        self.heard.push(Heard::Invalidated { path: path.clone(), property });
                    }
                }
                "InterfacesAdded" => {
                    let (path, interfaces): (dbus::Path<'_>, std::collections::HashMap<String, PropMap>) =
                        message.read2().unwrap();
                    let interfaces = interfaces.into_keys().collect();
                    self.heard.push(Heard::Added { path: path.to_string(), interfaces });
                }
                "InterfacesRemoved" => {
                    let (path, interfaces): (dbus::Path<'_>, Vec<String>) = message.read2().unwrap();
                    self.heard.push(Heard::Removed { path: path.to_string(), interfaces });
                }
                _ => {}
            },
        }
    }

    /// Takes what has come, and waits a little where nothing has.
    pub fn listen(&mut self) {
        self.channel.read_write(Some(Duration::from_millis(20))).unwrap();
        while let Some(message) = self.channel.pop_message() {
            self.take(message);
        }
    }

    /// Waits until something is so of what was heard.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let last = &self.heard[self.heard.len().saturating_sub(20)..];
            assert!(start.elapsed() < PATIENCE, "never: {what}; heard last: {last:#?}");
            self.listen();
        }
    }

    pub fn is_answered(&self, call: Call) -> bool {
        self.answers.iter().any(|(answered, _)| *answered == call)
    }

    /// Where in the order of all that was heard.
    #[track_caller]
    pub fn place(&self, wanted: &Heard) -> usize {
        let place = self.heard.iter().position(|heard| heard == wanted);
        place.unwrap_or_else(|| panic!("{wanted:?} was not heard: {:#?}", self.heard))
    }

    #[track_caller]
    pub fn answer(&mut self, call: Call) -> Result<Message, Refused> {
        self.until(&format!("{call:?} is answered"), |client| client.is_answered(call));
        let at = self.answers.iter().position(|(answered, _)| *answered == call).unwrap();
        let (_, mut message) = self.answers.swap_remove(at);
        match message.as_result() {
            Ok(_) => Ok(message),
            Err(error) => {
                let name = error.name().unwrap_or_default().to_owned();
                let name = name.strip_prefix("org.bluez.Error.").unwrap_or(&name).to_owned();
                Err((name, error.message().unwrap_or_default().to_owned()))
            }
        }
    }

    #[track_caller]
    pub fn call(&mut self, path: &str, member: &str, arguments: impl AppendAll) -> Result<Message, Refused> {
        let call = self.start(path, member, arguments);
        self.answer(call)
    }

    /// Whatever the daemon sent so far has come when this returns: it answers in the order in which it is asked.
    #[track_caller]
    pub fn round_trip(&mut self) {
        self.call("/", "Introspect", ()).unwrap();
    }

    #[track_caller]
    pub fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String, Refused> {
        let answer = self.call(path, "Get", (interface, name))?;
        let value: dbus::arg::Variant<Box<dyn RefArg>> = answer.read1().unwrap();
        Ok(told(&value.0))
    }

    #[track_caller]
    pub fn write(&self, path: &str, value: &[u8]) -> Call {
        self.start(path, "WriteValue", (value.to_vec(), kind("request")))
    }

    #[track_caller]
    pub fn command(&self, path: &str, value: &[u8]) -> Call {
        self.start(path, "WriteValue", (value.to_vec(), kind("command")))
    }

    #[track_caller]
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, Refused> {
        let answer = self.call(path, "ReadValue", (PropMap::new(),))?;
        Ok(answer.read1().unwrap())
    }

    pub fn power(&mut self, on: bool) {
        let value = dbus::arg::Variant(on);
        self.call(ADAPTER, "Set", ("org.bluez.Adapter1", "Powered", value)).unwrap();
    }

    /// Answers what this client was asked.
    pub fn say(&self, answer: Message) {
        self.channel.send(answer).unwrap();
    }

    /// The values that characteristics told, oldest first.
    pub fn values(&self) -> Vec<String> {
        let values = self.heard.iter().filter_map(|heard| match heard {
            Heard::Changed { property, value, .. } if property == "Value" => Some(value.clone()),
            _ => None,
        });
        values.collect()
    }
}

fn kind(kind: &str) -> PropMap {
    let kind: Box<dyn RefArg> = Box::new(kind.to_owned());
    PropMap::from([("type".to_owned(), dbus::arg::Variant(kind))])
}

/// A value as text: `true`, `-60`, `[1, 2]`.
fn told(value: &(dyn RefArg + 'static)) -> String {
    if let Some(bytes) = dbus::arg::cast::<Vec<u8>>(value) {
        return format!("{bytes:?}");
    }
    match (value.as_i64(), dbus::arg::RefArg::as_str(value)) {
        (Some(number), _) if value.arg_type() == dbus::arg::ArgType::Boolean => (number == 1).to_string(),
        (Some(number), _) => number.to_string(),
        (None, Some(text)) => text.to_owned(),
        (None, None) => format!("{value:?}"),
    }
}

pub fn changed(path: &str, property: &str, value: &str) -> Heard {
    Heard::Changed { path: path.into(), property: property.into(), value: value.into() }
}

pub fn invalidated(path: &str, property: &str) -> Heard {
    Heard::Invalidated { path: path.into(), property: property.into() }
}

pub fn removed(path: &str, interface: &str) -> Heard {
    Heard::Removed { path: path.into(), interfaces: vec![interface.into()] }
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Refused>, name: &str, text: &str) {
    let (is_name, is_text) = answer.unwrap_err();
    assert_eq!((is_name.as_str(), is_text.as_str()), (name, text));
}
