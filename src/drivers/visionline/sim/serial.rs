//! One conversation over a serial line: blocks of its own reading, each acknowledged, and answered one after the other.
//!
//! How a real server frames its answers here is not published. This one frames them as it is spoken to, and asks for no
//! acknowledgement of them; the driver's tests by hand-written bytes hold the other forms.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{server::Simulator, wire::LONGEST};
use crate::sim::Direction;

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;
const LABEL: &str = "serial";

impl Simulator {
    /// Serves a serial line until it hangs up.
    pub async fn serve_serial<S: AsyncRead + AsyncWrite + Unpin>(&self, mut line: S) {
        while let Some(block) = hear(&mut line).await {
            let Some(text) = checked(&block) else {
                self.note(Direction::Received, "bad_block", &block);
                self.note(Direction::Sent, "NAK", &[NAK]);
                if line.write_all(&[NAK]).await.is_err() {
                    return;
                }
                continue;
            };
            let kind = text.get(..3).map_or_else(String::new, |name| name.escape_ascii().to_string());
            self.note(Direction::Received, &kind, &block);
            let nak = self.change(|state, _| std::mem::take(&mut state.faults.nak));
            let first = if nak { NAK } else { ACK };
            self.note(Direction::Sent, if nak { "NAK" } else { "ACK" }, &[first]);
            if line.write_all(&[first]).await.is_err() {
                return;
            }
            if nak {
                continue;
            }
            // No answer means silence, and the line lives on.
            let Ok((kind, answer)) = self.order(text, LABEL).await else { continue };
            let answer = blocked(answer.strip_suffix(b"\r\n").unwrap_or(&answer));
            self.note(Direction::Sent, &kind, &answer);
            if line.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    fn note(&self, way: Direction, kind: &str, bytes: &[u8]) {
        self.change(|state, now| state.tape.record(now, LABEL, way, kind, bytes));
    }
}

/// From STX to ETX; what stands before it is nobody's. None once the line hangs up.
async fn hear(line: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    loop {
        match line.read_u8().await.ok()? {
            STX => block = vec![STX],
            _ if block.is_empty() => {}
            ETX => {
                block.push(ETX);
                return Some(block);
            }
            _ if block.len() > LONGEST => block.clear(),
            byte => block.push(byte),
        }
    }
}

/// The text of a block whose check agrees.
fn checked(block: &[u8]) -> Option<&[u8]> {
    let inner = block.strip_suffix(&[ETX])?;
    let (summed, check) = inner.split_at(inner.len().checked_sub(2)?);
    (sum(summed).as_bytes() == check).then(|| summed.strip_prefix(&[STX]))?
}

fn blocked(text: &[u8]) -> Vec<u8> {
    let summed = [&[STX], text].concat();
    let check = sum(&summed);
    [&summed[..], check.as_bytes(), &[ETX]].concat()
}

fn sum(bytes: &[u8]) -> String {
    format!("{:02X}", bytes.iter().fold(0, |sum, byte| sum ^ byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is worked out by hand from the published layout: the check covers STX.
    const ANSWER: &[u8] = b"\x02CCA;EA1;RC0;6C\x03";

    #[test]
    fn a_block_has_its_check_over_stx_and_text() {
        assert_eq!(blocked(b"CCA;EA1;RC0;"), ANSWER);
        assert_eq!(checked(ANSWER), Some(&b"CCA;EA1;RC0;"[..]));
        assert_eq!(checked(b"\x02CCA;EA1;RC0;6D\x03"), None);
        assert_eq!(checked(b"\x02\x03"), None);
    }

    #[tokio::test]
    async fn noise_and_endless_blocks_are_nobodys() {
        let mut endless = vec![STX];
        endless.extend([b'x'; LONGEST * 2]);
        let bytes = [b"\x06noise", &endless[..], b"\x02CC\x02", &ANSWER[1..]].concat();
        let mut line = std::io::Cursor::new(bytes);
        assert_eq!(hear(&mut line).await.as_deref(), Some(ANSWER));
        assert_eq!(hear(&mut line).await, None);
    }
}
