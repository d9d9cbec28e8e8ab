//! The chip's line, and what goes wrong on demand.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::chip::{Chip, Reply};

/// A line of noise is no command; what is kept of it is no more than a long frame.
const LONGEST: usize = 300;

/// A reader. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Reader(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changes: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub chip: Chip,
    pub faults: Vec<Armed>,
    /// How often each command was heard, by its code.
    pub heard: std::collections::BTreeMap<u8, u64>,
    /// Whether the serial port is plugged in.
    pub plugged: bool,
    pub quit: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            chip: Chip::default(),
            faults: Vec::new(),
            heard: std::collections::BTreeMap::new(),
            plugged: true,
            quit: false,
        }
    }
}

/// What goes wrong with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not heard.
    Deaf,
    /// It is heard, and not answered.
    Silent,
    /// Noise comes before what is said.
    Noise,
    /// The sum of the answer is wrong.
    BadSum,
    /// It is answered half.
    Torn,
    /// The answer is one to nothing that was asked.
    Foreign,
    /// It is taken for no command.
    Syntax,
}

#[derive(Debug)]
pub(super) struct Armed {
    pub fault: Fault,
    /// Only with this command.
    pub on: Option<u8>,
    /// How often it still happens; without a number, until cleared.
    pub times: Option<u32>,
}

impl State {
    fn fault(&mut self, code: u8) -> Option<Fault> {
        let at = self.faults.iter().position(|armed| armed.on.is_none_or(|on| on == code))?;
        let armed = &mut self.faults[at];
        let fault = armed.fault;
        if let Some(times) = &mut armed.times {
            *times -= 1;
            if *times == 0 {
                self.faults.remove(at);
            }
        }
        Some(fault)
    }
}

/// What the chip does next about a command.
enum Next {
    Say(Vec<u8>),
    /// The answer to a call without end.
    WaitForCard(u8),
}

impl Reader {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic while held")
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.changes.notify_waiters();
        result
    }

    /// Waits until something is so.
    pub(super) async fn until<T>(&self, so: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.0.changes.notified();
            if let Some(so) = self.look(&so) {
                return so;
            }
            changed.await;
        }
    }

    /// Speaks at a line until it hangs up, or is unplugged.
    pub async fn serve(&self, mut line: impl AsyncRead + AsyncWrite + Unpin) {
        let (mut held, mut buffer) = (Vec::new(), [0; 512]);
        loop {
            while let Some((count, body)) = frame(&held) {
                held.drain(..count);
                let Some(body) = body else { continue };
                match self.obey(&body) {
                    Next::Say(bytes) => {
                        if line.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Next::WaitForCard(most) => {
                        if line.write_all(&ack()).await.is_err() {
                            return;
                        }
                        let called = self.until(|state| (!state.chip.cards.is_empty()).then_some(()));
                        // Whatever the host says ends it.
                        tokio::select! {
                            biased;
                            read = line.read(&mut buffer) => match read {
                                Ok(0) | Err(_) => return,
                                Ok(count) => held.extend(&buffer[..count]),
                            },
                            () = called => {
                                let answer = self.change(|state| state.chip.list(most));
                                if let Reply::Heard(body) = answer
                                    && line.write_all(&framed(&body)).await.is_err()
                                {
                                    return;
                                }
                            }
                        }
                    }
                }
            }
            let woken = held.windows(2).any(|two| two == [0x55, 0x55]);
            if woken {
                self.change(|state| state.chip.wake());
            }
            let count = tokio::select! {
                biased;
                () = self.until(|state| (!state.plugged).then_some(())) => return,
                read = line.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                },
            };
            held.extend(&buffer[..count]);
            if held.windows(2).any(|two| two == [0x55, 0x55]) {
                self.change(|state| state.chip.wake());
            }
            if LONGEST < held.len() {
                held.drain(..held.len() - LONGEST);
            }
        }
    }

    fn obey(&self, body: &[u8]) -> Next {
        self.change(|state| {
            let code = body.get(1).copied().unwrap_or_default();
            *state.heard.entry(code).or_default() += 1;
            let fault = state.fault(code);
            if fault == Some(Fault::Deaf) {
                return Next::Say(Vec::new());
            }
            let said = match state.chip.hear(body) {
                Reply::Nothing => return Next::Say(Vec::new()),
                Reply::WhenACardComes => match body.get(2) {
                    Some(most) => return Next::WaitForCard(*most),
                    None => return Next::Say(Vec::new()),
                },
                Reply::Heard(said) => said,
            };
            let mut answer = framed(&said);
            Next::Say(match fault {
                None | Some(Fault::Deaf) => [ack(), answer].concat(),
                Some(Fault::Silent) => ack(),
                Some(Fault::Noise) => {
                    [&b"\x00\xFF\x55\x00\x00\xFF\x7E\x00noise\xD5"[..], &ack(), b"\xFF\x00\x00", &answer]
                        .concat()
                }
                Some(Fault::BadSum) => {
                    let at = answer.len() - 2;
                    answer[at] ^= 0x10;
                    [ack(), answer].concat()
                }
                Some(Fault::Torn) => {
                    answer.truncate(answer.len() / 2);
                    [ack(), answer].concat()
                }
                Some(Fault::Foreign) => {
                    let mut other = said;
                    other[1] = other[1].wrapping_add(2);
                    [ack(), framed(&other)].concat()
                }
                Some(Fault::Syntax) => framed(&[0x7F]),
            })
        })
    }
}

fn ack() -> Vec<u8> {
    vec![0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00]
}

/// What goes out: short frames, as the chip's answers here are.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).expect("an answer here is short");
    let total: u32 = body.iter().map(|byte| u32::from(*byte)).sum();
    let check = u8::try_from((256 - total % 256) % 256).unwrap_or_default();
    let mut frame = vec![0x00, 0x00, 0xFF, length, 0u8.wrapping_sub(length)];
    frame.extend(body);
    frame.extend([check, 0x00]);
    frame
}

/// The first frame in what came: how many bytes to forget, and what it says, if its sums are right.
fn frame(bytes: &[u8]) -> Option<(usize, Option<Vec<u8>>)> {
    let start = (0..bytes.len().saturating_sub(1)).find(|at| bytes[*at] == 0x00 && bytes[at + 1] == 0xFF)?;
    let head = start + 2;
    let (length, first) = match (bytes.get(head)?, bytes.get(head + 1)?) {
        // The host heard: nothing to do.
        (0x00, 0xFF) | (0xFF, 0x00) => return Some((head + 2, None)),
        (0xFF, 0xFF) => {
            let (high, low, check) = (*bytes.get(head + 2)?, *bytes.get(head + 3)?, *bytes.get(head + 4)?);
            if (u32::from(high) + u32::from(low) + u32::from(check)) % 256 != 0 {
                return Some((head, None));
            }
            (usize::from(high) * 256 + usize::from(low), head + 5)
        }
        (length, check) => {
            if (u32::from(*length) + u32::from(*check)) % 256 != 0 {
                return Some((head, None));
            }
            (usize::from(*length), head + 2)
        }
    };
    if 265 < length {
        return Some((head, None));
    }
    let body = bytes.get(first..first + length)?;
    let check = bytes.get(first + length)?;
    let total: u32 = body.iter().chain([check]).map(|byte| u32::from(*byte)).sum();
    Some((first + length + 1, total.is_multiple_of(256).then(|| body.to_vec())))
}
