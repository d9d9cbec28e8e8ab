//! Refusals of the HTTP library itself, with a body that clients can read.
//!
//! What is no HTTP, or has a head that is too long, never reaches a handler: the library answers with a head alone, and
//! clients show their own HTTP library's error in place of ours. On its way out such a head is recognised by lacking
//! the request id that every answer of ours carries, and gets one, with a body in JSON. Nothing else is touched: no
//! body of ours holds an empty line, as JSON writes line breaks as escapes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::seams::Random;

/// A connection whose bare refusals are given a body.
pub(super) struct OwnErrors<S> {
    stream: S,
    random: Random,
    /// What is written in the place of a head, and how much of it was.
    instead: (Vec<u8>, usize),
}

impl<S: AsyncWrite + Unpin> OwnErrors<S> {
    pub(super) fn new(stream: S, random: Random) -> Self {
        Self { stream, random, instead: (Vec::new(), 0) }
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (bytes, written) = &mut self.instead;
        while *written < bytes.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OwnErrors<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        match refusal(bytes) {
            Some(status) => {
                let answer = answer(status, &self.random.uuid().to_string());
                self.instead = (answer, 0);
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OwnErrors<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// The status, such as `400 Bad Request`, of a head that no handler of ours made.
fn refusal(bytes: &[u8]) -> Option<&str> {
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    let head = std::str::from_utf8(head).ok()?.strip_prefix("HTTP/1.1 ")?;
    let (status, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    (status.starts_with('4') && !fields.contains("seam-request-id")).then_some(status)
}

fn answer(status: &str, id: &str) -> Vec<u8> {
    let (kind, message) = match status.get(..3) {
        Some("414") => ("invalid_query_params", "The address is too long; send the same call as POST"),
        Some("431") => ("headers_too_large", "The headers are too large"),
        _ => ("invalid_http", "This is not an HTTP/1.1 request"),
    };
    let body = json!({"error": {"type": kind, "message": message}, "ok": false}).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json; charset=utf-8\r\nseam-request-id: {id}\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn through(bytes: &[u8], room: usize) -> String {
        let (ours, mut theirs) = duplex(room);
        let mut ours = OwnErrors::new(ours, Random::seeded(1));
        let write = async move {
            ours.write_all(bytes).await.unwrap();
            ours.flush().await.unwrap();
        };
        let mut seen = String::new();
        let read = theirs.read_to_string(&mut seen);
        let ((), read) = tokio::join!(write, read);
        read.unwrap();
        seen
    }

    #[tokio::test]
    async fn a_bare_refusal_gets_a_body_and_nothing_else_is_touched() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let seen = through(bare, 16).await;
        assert!(seen.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{seen}");
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("seam-request-id: "));
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["type"], "headers_too_large");
        let untouched = [
            "HTTP/1.1 404 Not Found\r\nseam-request-id: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 400 in the midst of something",
        ];
        for bytes in untouched {
            assert_eq!(through(bytes.as_bytes(), 16).await, bytes);
        }
    }
}
