//! What a person or a test says is to happen.

use std::time::Duration;

use super::*;

impl Daemon {
    pub(super) fn crash(&mut self) {
        self.channel = None;
        self.agenda.clear();
        self.agents = Agents::default();
        self.adapter.discovering.clear();
        for device in &mut self.devices {
            device.epoch += 1;
            if device.connected {
                device.peripheral.disconnected(self.clock.now());
            }
            (device.connected, device.resolved, device.connecting) = (false, false, None);
            (device.shown, device.encrypted, device.pairing) = (false, false, None);
            device.writing.clear();
            device.notifying.clear();
            // What was connected once is on the disk.
            device.known = device.permanent;
            device.goes_at = None;
        }
    }

    pub(super) fn commanded(&mut self, command: &str) -> Result<String, String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let at = |label: &str| {
            let found = self.devices.iter().position(|device| device.label == label);
            found.ok_or_else(|| {
                let known: Vec<_> = self.devices.iter().map(|device| device.label.as_str()).collect();
                format!("there is no device {label}; there is: {}", known.join(", "))
            })
        };
        let done = Ok(String::new());
        match words.as_slice() {
            ["lock", label, ..] => {
                let at = at(label)?;
                let rest = command.trim_start().strip_prefix("lock").unwrap_or_default().trim_start();
                let rest = rest.strip_prefix(label).unwrap_or_default().trim();
                self.devices[at].peripheral.control(self.clock.now(), rest)
            }
            ["fault", label, operation, kind @ ..] => {
                let (at, operation) = (at(label)?, self::operation(operation)?);
                let fault = fault(kind)?;
                self.devices[at].faults.entry(operation).or_default().push_back(fault);
                done
            }
            ["faults", label] => {
                let queued = self.devices[at(label)?].faults.values().flatten();
                Ok(queued.filter(|fault| !matches!(fault, Fault::Pass)).count().to_string())
            }
            ["resolve", label, how @ ..] => {
                let at = at(label)?;
                self.devices[at].resolution = match how {
                    ["whole"] => Resolution::Whole,
                    ["never"] => Resolution::Never,
                    ["late", ms] => Resolution::ObjectsLate(milliseconds(ms)?),
                    ["drop", ms] => Resolution::DropBefore(milliseconds(ms)?),
                    _ => return Err("resolve DEVICE whole | never | late MS | drop MS".into()),
                };
                done
            }
            ["drop", label] => {
                let at = at(label)?;
                self.drop_link(at);
                done
            }
            ["range", label, on @ ("on" | "off")] => {
                let at = at(label)?;
                self.devices[at].in_range = *on == "on";
                if *on == "off" {
                    self.drop_link(at);
                }
                done
            }
            ["forget", label] => {
                let at = at(label)?;
                self.forget(at);
                done
            }
            ["burst", label, count] => {
                let at = at(label)?;
                for _ in 0..count.parse::<u32>().map_err(|error| error.to_string())? {
                    self.is_heard(at);
                }
                done
            }
            ["adapter", "on"] => {
                self.power(true);
                done
            }
            ["adapter", "off"] => {
                self.power(false);
                done
            }
            ["adapter", "unplug"] => {
                self.unplug();
                done
            }
            ["adapter", "plug"] => {
                self.plug();
                done
            }
            ["adapter", "pairs", on @ ("on" | "off")] => {
                self.adapter.pairs = *on == "on";
                done
            }
            ["encryption", label, on @ ("on" | "off")] => {
                let at = at(label)?;
                self.devices[at].wants_encryption = *on == "on";
                done
            }
            ["timing", what, ms] => {
                let timing = &mut self.timing;
                let of = [
                    ("advertise", &mut timing.advertise),
                    ("connect", &mut timing.connect),
                    ("resolve", &mut timing.resolve),
                    ("pair", &mut timing.pair),
                    ("disconnect", &mut timing.disconnect),
                    ("forget", &mut timing.forget),
                    ("silence", &mut timing.silence),
                ];
                let names = of.each_ref().map(|(name, _)| *name).join(", ");
                let (_, time) = of
                    .into_iter()
                    .find(|(name, _)| name == what)
                    .ok_or_else(|| format!("there is no time `{what}`; there is: {names}"))?;
                *time = milliseconds(ms)?;
                done
            }
            ["crash"] => {
                self.crash();
                done
            }
            ["up"] => {
                if self.channel.is_none() {
                    self.up()?;
                }
                done
            }
            ["count", member, label @ ..] => {
                let is_it = |(name, device): &(String, String)| {
                    name == member && label.first().is_none_or(|label| device == label)
                };
                let counts = self.calls.iter().filter(|(call, _)| is_it(call)).map(|(_, count)| count);
                Ok(counts.sum::<u64>().to_string())
            }
            ["connected"] => {
                let connected = self.devices.iter().filter(|device| device.connected);
                let labels: Vec<_> = connected.map(|device| device.label.as_str()).collect();
                Ok(labels.join(" "))
            }
            ["agents"] => Ok(self.agents.count().to_string()),
            _ => Err(format!("`{command}` is no command: see the simulator's documentation")),
        }
    }
}

fn operation(word: &str) -> Result<Operation, String> {
    Ok(match word {
        "connect" => Operation::Connect,
        "disconnect" => Operation::Disconnect,
        "read" => Operation::Read,
        "write" => Operation::Write,
        "notify" => Operation::Notify,
        "value" => Operation::Value,
        _ => {
            return Err(format!("`{word}` is no operation: connect, disconnect, read, write, notify, value"));
        }
    })
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|error| format!("{text}: {error}"))
}

fn fault(words: &[&str]) -> Result<Fault, String> {
    Ok(match words {
        ["pass"] => Fault::Pass,
        ["error", name, text @ ..] => {
            let name =
                if name.contains('.') { (*name).to_owned() } else { format!("org.bluez.Error.{name}") };
            Fault::Error { name, text: text.join(" ") }
        }
        ["delay", ms] => Fault::Delay(milliseconds(ms)?),
        ["hang"] => Fault::Hang,
        ["mute"] => Fault::Mute,
        ["drop"] => Fault::DropLink,
        ["drop_mute"] => Fault::DropLinkMute,
        ["reply_drop"] => Fault::ReplyThenDrop,
        ["double"] => Fault::Double,
        ["truncate"] => Fault::Truncate,
        _ => return Err(format!("`{}` is no fault", words.join(" "))),
    })
}
