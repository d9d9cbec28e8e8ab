//! What is called, and of which object.

use std::collections::HashMap;

use dbus::{Message, MessageType, arg::Variant};
use uuid::Uuid;

use super::*;

impl Daemon {
    pub(super) fn heard(&mut self, message: &Message) {
        match message.msg_type() {
            MessageType::MethodCall => {}
            MessageType::Signal => {
                if message.member().is_some_and(|member| &*member == "NameOwnerChanged")
                    && let (Some(name), Some(_), Some(owner)) = message.get3::<String, String, String>()
                    && owner.is_empty()
                {
                    self.client_left(&name);
                }
                return;
            }
            MessageType::MethodReturn => return self.answered(message, true),
            MessageType::Error => return self.answered(message, false),
        }
        let answer = self.called(message);
        self.answer(message, answer);
    }

    pub(super) fn answer(&self, message: &Message, answer: Answer) {
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err((name, text)) => error(message, &name, &text),
        };
        if !message.get_no_reply() {
            self.send(answer);
        }
    }

    fn client_left(&mut self, client: &str) {
        self.agent_left(client);
        for device in &mut self.devices {
            device.notifying.values_mut().for_each(|clients| {
                clients.remove(client);
            });
        }
        if self.adapter.discovering.remove(client) && self.adapter.discovering.is_empty() {
            self.scan_ended();
        }
    }

    /// Every object: its path and its interfaces.
    pub(super) fn objects(&self) -> Vec<(String, Interfaces)> {
        let mut all = Vec::new();
        if !self.adapter.present {
            return all;
        }
        all.push((adapter_path(), HashMap::from([(ADAPTER.to_owned(), objects::adapter(&self.adapter))])));
        for (at, device) in self.devices.iter().enumerate() {
            if device.known {
                let properties = objects::device(device, ADAPTER_NAME, self.is_scanning());
                all.push((self.path(at), HashMap::from([(DEVICE.to_owned(), properties)])));
            }
            if device.shown {
                all.extend(objects::table(device, &self.path(at)));
            }
        }
        all
    }

    /// One of them.
    fn object(&self, path: &str) -> Option<Interfaces> {
        // A device is asked for at each of its advertisements: not all that there is has to be told for that.
        let device = (0..self.devices.len()).find(|at| self.path(*at) == path);
        if let Some(device) = device.map(|at| &self.devices[at]) {
            let is_there = self.adapter.present && device.known;
            let properties = || objects::device(device, ADAPTER_NAME, self.is_scanning());
            return is_there.then(|| HashMap::from([(DEVICE.to_owned(), properties())]));
        }
        self.objects().into_iter().find_map(|(known, interfaces)| (known == path).then_some(interfaces))
    }

    fn called(&mut self, message: &Message) -> Answer {
        let path = message.path().map(|path| path.to_string()).unwrap_or_default();
        let interface = message.interface().map(|interface| interface.to_string()).unwrap_or_default();
        let member = message.member().map(|member| member.to_string()).unwrap_or_default();
        let short = interface.rsplit('.').next().unwrap_or_default();
        let device = (0..self.devices.len()).find(|at| {
            let here = self.path(*at);
            self.devices[*at].known && (path == here || path.starts_with(&format!("{here}/")))
        });
        let label = device.map(|at| self.devices[at].label.clone()).unwrap_or_default();
        // Whoever calls what there is not makes nothing grow without end.
        if self.calls.len() < 4096 {
            *self.calls.entry((format!("{short}.{member}"), label)).or_default() += 1;
        }
        match (interface.as_str(), member.as_str()) {
            ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects") => {
                let objects: HashMap<dbus::Path<'static>, Interfaces> = self
                    .objects()
                    .into_iter()
                    .filter_map(|(path, interfaces)| Some((dbus::Path::new(path).ok()?, interfaces)))
                    .collect();
                return Ok(Some(message.method_return().append1(objects)));
            }
            ("org.freedesktop.DBus.Introspectable", "Introspect") => {
                let mut paths: Vec<String> = self.objects().into_iter().map(|(path, _)| path).collect();
                if path != "/" && path != "/org" && path != "/org/bluez" && !paths.contains(&path) {
                    return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
                }
                paths.push("/org/bluez".into());
                return Ok(Some(message.method_return().append1(objects::introspection(&paths, &path))));
            }
            ("org.freedesktop.DBus.Properties", _) => return self.properties(message, &path, &member),
            ("org.bluez.AgentManager1", _) if path == "/org/bluez" => {
                return self.agents.called(&member, message);
            }
            _ => {}
        }
        if path == adapter_path() && self.adapter.present {
            return match member.as_str() {
                "StartDiscovery" => self.start_discovery(message),
                "StopDiscovery" => self.stop_discovery(message),
                "SetDiscoveryFilter" if !self.adapter.powered => refuse(NOT_READY, "Resource Not Ready"),
                "SetDiscoveryFilter" => Ok(Some(message.method_return())),
                "RemoveDevice" => {
                    let wanted: Option<dbus::Path<'_>> = message.get1();
                    let wanted = wanted.map(|path| path.to_string()).unwrap_or_default();
                    let at = (0..self.devices.len())
                        .find(|at| self.path(*at) == wanted && self.devices[*at].known);
                    match at {
                        Some(at) => {
                            self.forget(at);
                            Ok(Some(message.method_return()))
                        }
                        None => refuse("org.bluez.Error.DoesNotExist", "Does Not Exist"),
                    }
                }
                _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
            };
        }
        let Some(at) = device.filter(|_| self.adapter.present) else {
            return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
        };
        if path == self.path(at) {
            return match member.as_str() {
                "Connect" => self.connect(at, message),
                "Disconnect" => self.disconnect(at, message),
                _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
            };
        }
        let uuids: Vec<Uuid> = self.devices[at]
            .services
            .iter()
            .flat_map(|service| &service.characteristics)
            .map(|one| one.uuid)
            .collect();
        let Some(uuid) = uuids
            .into_iter()
            .find(|uuid| self.characteristic_path(at, *uuid).as_deref() == Some(path.as_str()))
        else {
            return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
        };
        match member.as_str() {
            "WriteValue" => self.write(at, uuid, message),
            "ReadValue" => self.read(at, uuid, message),
            "StartNotify" => self.start_notify(at, uuid, message),
            "StopNotify" => self.stop_notify(at, uuid, message),
            _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
        }
    }

    fn properties(&mut self, message: &Message, path: &str, member: &str) -> Answer {
        let (interface, name): (Option<String>, Option<String>) = message.get2();
        let (interface, name) = (interface.unwrap_or_default(), name.unwrap_or_default());
        if member == "Set" {
            if path != adapter_path() || name != "Powered" {
                return refuse("org.freedesktop.DBus.Error.PropertyReadOnly", name);
            }
            let value: Option<Variant<bool>> = message.get3::<String, String, Variant<bool>>().2;
            let Some(Variant(on)) = value else {
                return refuse("org.freedesktop.DBus.Error.InvalidArgs", "Powered is a boolean");
            };
            self.power(on);
            return Ok(Some(message.method_return()));
        }
        let Some(mut interfaces) = self.object(path) else {
            return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
        };
        let Some(mut properties) = interfaces.remove(&interface) else {
            return refuse(
                "org.freedesktop.DBus.Error.InvalidArgs",
                format!("No such interface '{interface}'"),
            );
        };
        match member {
            "GetAll" => Ok(Some(message.method_return().append1(properties))),
            "Get" => match properties.remove(&name) {
                Some(value) => Ok(Some(message.method_return().append1(value))),
                None => {
                    refuse("org.freedesktop.DBus.Error.InvalidArgs", format!("No such property '{name}'"))
                }
            },
            _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
        }
    }
}
