//! A client of the API that does no more than it must: one connection that is kept, TLS as the product shows it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where an API is and how it lets us in.
#[derive(Clone)]
pub struct Address {
    host: String,
    key: String,
    tls: Arc<ClientConfig>,
}

impl Address {
    /// From what a cloud says when it starts: its `https://` address, its authority's certificate, and an API key.
    pub fn new(url: &str, ca_file: &Path, key: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file)?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = url.strip_prefix("https://").context("an https address")?.to_owned();
        Ok(Self { host, key: key.trim().to_owned(), tls: Arc::new(tls) })
    }

    pub async fn connect(&self) -> anyhow::Result<Client> {
        let address: std::net::SocketAddr = self.host.parse()?;
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(address.ip().to_string())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?;
        Ok(Client { stream, host: self.host.clone(), key: self.key.clone(), buffer: Vec::new() })
    }
}

/// One connection.
pub struct Client {
    stream: TlsStream<TcpStream>,
    host: String,
    key: String,
    buffer: Vec<u8>,
}

impl Client {
    /// A call that must succeed; how long it took, from the first byte of the request to the last of the answer.
    pub async fn call(&mut self, path: &str, body: &Value) -> anyhow::Result<(Value, Duration)> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            self.key,
            body.len(),
        );
        let began = Instant::now();
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let answer = self.answer().await?;
        let took = began.elapsed();
        let answer: Value = serde_json::from_slice(&answer)?;
        ensure!(answer["ok"] == true, "{path} with {body}: {answer}");
        Ok((answer, took))
    }

    /// The body of the next answer.
    async fn answer(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let whole =
                    end + 4 + length.context("an answer says how long it is")?.trim().parse::<usize>()?;
                while self.buffer.len() < whole {
                    self.read().await?;
                }
                let body = self.buffer[end + 4..whole].to_vec();
                self.buffer.drain(..whole);
                return Ok(body);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(64 * 1024);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the API hung up");
        }
        Ok(())
    }
}
