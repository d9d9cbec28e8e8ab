//! One conversation over one stream.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::Instant,
};

use super::{
    faults::{Fault, noise},
    server::{Ended, Simulator},
    state::State,
    wire::{self, Item, Reader},
};
use crate::sim::Direction;

/// How often an answer is repeated for a client that did not understand it.
const REPEATS: u32 = 3;
/// Paced bytes leave in ticks of about this length.
const TICK: Duration = Duration::from_millis(10);

pub(super) struct Conversation<'a, S> {
    simulator: &'a Simulator,
    stream: S,
    label: &'a str,
    reader: Reader,
    /// The order being fulfilled.
    order: Option<oneshot::Receiver<Vec<String>>>,
    /// An answer that is held back.
    late: Option<(Instant, Vec<String>)>,
    /// The last answer, until the client confirms it or goes on, and how often it was repeated.
    unconfirmed: Option<(Vec<String>, u32)>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Conversation<'a, S> {
    pub(super) fn new(simulator: &'a Simulator, stream: S, label: &'a str) -> Self {
        Self {
            simulator,
            stream,
            label,
            reader: Reader::default(),
            order: None,
            late: None,
            unconfirmed: None,
        }
    }

    pub(super) async fn hold(&mut self) -> Ended {
        let mut buffer = [0; 256];
        loop {
            let order = async {
                match &mut self.order {
                    Some(order) => order.await.ok(),
                    None => std::future::pending().await,
                }
            };
            let late = async {
                match &self.late {
                    Some((at, _)) => tokio::time::sleep_until(*at).await,
                    None => std::future::pending().await,
                }
            };
            let went = tokio::select! {
                biased;
                answer = order => {
                    self.order = None;
                    self.answer_now_or_later(answer).await
                }
                () = late => match self.late.take() {
                    Some((_, answer)) => self.answer(answer).await,
                    None => Ok(()),
                },
                read = self.stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => Err(Ended::ByClient),
                    Ok(count) => self.hear(&buffer[..count]).await,
                },
            };
            if let Err(ended) = went {
                return ended;
            }
        }
    }

    async fn hear(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let passed = self.simulator.change(|state, _| state.pass(bytes.len()));
        let mut unheard = Vec::new();
        for byte in &bytes[..passed] {
            match self.reader.push(*byte) {
                None => {}
                Some(Item::Noise(noise)) => unheard.extend(noise),
                Some(item) => {
                    self.note_noise(&mut unheard);
                    self.take(item).await?;
                }
            }
        }
        self.note_noise(&mut unheard);
        self.hang_up_if_told()
    }

    async fn take(&mut self, item: Item) -> Result<(), Ended> {
        match item {
            Item::Enq => {
                self.unconfirmed = None;
                self.received("ENQ", &[wire::ENQ]);
                let working = self.order.is_some();
                let reply = self.simulator.change(|state, _| {
                    if state.faults.strikes(Fault::SilentEnq) {
                        None
                    } else {
                        Some(working || state.faults.strikes(Fault::Busy))
                    }
                });
                match reply {
                    None => Ok(()),
                    Some(true) => self.send("NAK", &[wire::NAK]).await,
                    Some(false) => self.send("ACK", &[wire::ACK]).await,
                }
            }
            Item::Ack => {
                self.received("ACK", &[wire::ACK]);
                self.unconfirmed = None;
                Ok(())
            }
            Item::Nak => {
                self.received("NAK", &[wire::NAK]);
                match self.unconfirmed.take() {
                    Some((answer, repeats)) if repeats < REPEATS => {
                        self.send_answer(answer, repeats + 1).await
                    }
                    _ => Ok(()),
                }
            }
            Item::BadCheck(raw) => {
                self.received("bad_frame", &raw);
                self.send("NAK", &[wire::NAK]).await
            }
            Item::Frame(frame) => {
                self.unconfirmed = None;
                self.received(wire::mnemonic(&frame.fields), &frame.raw);
                let working = self.order.is_some();
                let (silent, refused) = self.simulator.change(|state, _| {
                    let silent = state.faults.strikes(Fault::SilentAck);
                    (silent, !silent && (working || state.faults.strikes(Fault::Nak)))
                });
                if silent {
                    return Ok(());
                }
                if refused {
                    return self.send("NAK", &[wire::NAK]).await;
                }
                // Taken before it is acknowledged: a client that never hears the ACK must assume the worst.
                self.order = Some(self.simulator.order(frame.fields, self.label));
                self.send("ACK", &[wire::ACK]).await?;
                match self.simulator.change(|state, _| state.faults.strikes(Fault::CloseAfterAck)) {
                    true => Err(Ended::ByFault),
                    false => Ok(()),
                }
            }
            Item::Noise(noise) => {
                self.received("noise", &noise);
                Ok(())
            }
        }
    }

    async fn answer_now_or_later(&mut self, answer: Option<Vec<String>>) -> Result<(), Ended> {
        let Some(answer) = answer else {
            return Ok(());
        };
        match self.simulator.change(|state, _| state.faults.take_late()) {
            None => self.answer(answer).await,
            Some(by) => {
                self.late = Some((Instant::now() + by, answer));
                Ok(())
            }
        }
    }

    async fn answer(&mut self, answer: Vec<String>) -> Result<(), Ended> {
        self.send_answer(answer, 0).await
    }

    async fn send_answer(&mut self, answer: Vec<String>, repeats: u32) -> Result<(), Ended> {
        let (noise, style, spoilt) = self.simulator.change(|state, _| {
            let spoilt = state.faults.strikes(Fault::BadLrc);
            (noise(state.faults.noise), state.style, spoilt)
        });
        if !noise.is_empty() {
            self.send("noise", &noise).await?;
        }
        let mut frame = wire::frame(&answer, style);
        if spoilt {
            wire::spoil(&mut frame);
        }
        self.send(wire::mnemonic(&answer), &frame).await?;
        self.unconfirmed = Some((answer, repeats));
        Ok(())
    }

    async fn send(&mut self, kind: &str, bytes: &[u8]) -> Result<(), Ended> {
        // On the tape before the client can have read it, so that whoever heard it also finds it there.
        let (passed, slow, baud) = self.simulator.change(|state, now| {
            let passed = state.pass(bytes.len());
            if passed > 0 {
                state.tape.record(now, self.label, Direction::Sent, kind, &bytes[..passed]);
            }
            (passed, state.faults.slow, state.baud)
        });
        let (step, pause) = match (slow, baud) {
            (Some(pause), _) => (1, pause),
            (None, Some(baud)) => {
                let a_byte = Duration::from_secs(10) / baud.get();
                let step = (TICK.as_nanos() / a_byte.as_nanos().max(1)).max(1) as usize;
                (step, a_byte * u32::try_from(step).unwrap_or(1))
            }
            (None, None) => (bytes.len().max(1), Duration::ZERO),
        };
        for chunk in bytes[..passed].chunks(step) {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            self.stream.write_all(chunk).await.map_err(|_| Ended::ByClient)?;
        }
        self.hang_up_if_told()
    }

    fn hang_up_if_told(&self) -> Result<(), Ended> {
        match self.simulator.look(State::is_spent) {
            true => Err(Ended::ByFault),
            false => Ok(()),
        }
    }

    fn note_noise(&self, noise: &mut Vec<u8>) {
        if !noise.is_empty() {
            self.received("noise", noise);
            noise.clear();
        }
    }

    fn received(&self, kind: &str, bytes: &[u8]) {
        self.simulator.change(|state, now| {
            state.tape.record(now, self.label, Direction::Received, kind, bytes);
        });
    }
}
