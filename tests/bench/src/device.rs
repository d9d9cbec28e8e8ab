//! A lock server that answers as fast as it can, so that only the agent is measured.
//!
//! It speaks just enough of the "Industry Standard" language: it acknowledges, and says that everything was done. What
//! it does not imitate: encoders, cards, a database of rooms, errors, time. It shares no code with the driver.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

const ENQ: u8 = 5;
const ACK: u8 = 6;
const STX: u8 = 2;
const ETX: u8 = 3;
const SEPARATOR: u8 = 0xB3;

/// What the devices tell.
#[derive(Debug)]
pub enum Seen {
    /// The first byte of a conversation.
    FirstByte(Instant),
    /// A whole command.
    Command,
}

/// All devices of a site.
#[derive(Clone)]
pub struct Devices {
    seen: mpsc::UnboundedSender<Seen>,
    commands: Arc<AtomicU64>,
    /// How often each room's card was made.
    rooms: Arc<Mutex<BTreeMap<Vec<u8>, u64>>>,
    /// A device answers only while it gets a permit of this, if it is held.
    answers: Arc<Semaphore>,
    held: bool,
}

impl Devices {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (seen, told) = mpsc::unbounded_channel();
        let devices = Self {
            seen,
            commands: Arc::default(),
            rooms: Arc::default(),
            answers: Arc::new(Semaphore::new(0)),
            held: false,
        };
        (devices, told)
    }

    /// They take commands, and answer each only after [`Self::let_answer`].
    pub fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// Lets so many answers go.
    pub fn let_answer(&self, answers: usize) {
        self.answers.add_permits(answers);
    }

    /// How many commands came in all.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::SeqCst)
    }

    /// How often a card was made for each room.
    pub fn rooms(&self) -> BTreeMap<Vec<u8>, u64> {
        self.rooms.lock().expect("no panic while held").clone()
    }

    /// Serves a line until it ends.
    pub async fn serve<P: AsyncRead + AsyncWrite + Unpin>(self, mut port: P) {
        let (mut buffer, mut bytes) = (Vec::new(), [0; 512]);
        loop {
            let count = match port.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let at = Instant::now();
            buffer.extend_from_slice(&bytes[..count]);
            while let Some(&first) = buffer.first() {
                let answer = match first {
                    ENQ => {
                        buffer.remove(0);
                        let _ = self.seen.send(Seen::FirstByte(at));
                        vec![ACK]
                    }
                    STX => match buffer.iter().position(|byte| *byte == ETX) {
                        // One check byte follows; it is not looked at.
                        Some(end) if end + 1 < buffer.len() => {
                            let frame: Vec<u8> = buffer.drain(..end + 2).collect();
                            self.commands.fetch_add(1, Ordering::SeqCst);
                            let _ = self.seen.send(Seen::Command);
                            if self.held {
                                self.answers.acquire().await.expect("never closed").forget();
                            }
                            self.answer(&frame[1..end])
                        }
                        _ => break,
                    },
                    _ => {
                        buffer.remove(0);
                        continue;
                    }
                };
                if port.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The acknowledgement of a command, and that it was done.
    fn answer(&self, body: &[u8]) -> Vec<u8> {
        let fields: Vec<&[u8]> = body.split(|byte| *byte == SEPARATOR).skip(1).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        let mut answer = vec![ACK, STX];
        let mut say = |field: &[u8]| {
            answer.push(SEPARATOR);
            answer.extend_from_slice(field);
        };
        say(field(0));
        say(field(1));
        if field(0).starts_with(b"LT") {
            // A card of the staff lies there.
            say(b"LM");
        } else {
            *self.rooms.lock().expect("no panic while held").entry(field(3).to_vec()).or_default() += 1;
        }
        answer.extend([SEPARATOR, ETX]);
        let check = answer[2..].iter().fold(0, |sum, byte| sum ^ byte);
        answer.push(check);
        answer
    }

    /// Serves whoever comes to a port of its own; gives its address.
    pub async fn listen(&self) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let devices = self.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                tokio::spawn(devices.clone().serve(tcp));
            }
        });
        Ok(address)
    }
}
