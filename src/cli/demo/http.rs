//! The least HTTPS client that the demo needs: one request a connection, trusting one certificate authority.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No answer of the API comes near this.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// A client of one API.
pub(super) struct Api {
    connector: TlsConnector,
    authority: String,
    key: String,
}

impl Api {
    /// A client for `https://HOST:PORT`.
    pub(super) fn new(url: &str, ca_file: &Path, key: String) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("https://").context("the API's address begins with https://")?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).context("read the API's CA")? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let authority = authority.trim_end_matches('/').to_owned();
        Ok(Self { connector: Arc::new(config).into(), authority, key })
    }

    /// Calls a path with a JSON body and gives the answer's body, whatever its status.
    pub(super) async fn call(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let (host, _port) = self.authority.rsplit_once(':').context("the API's address has a port")?;
        let stream = TcpStream::connect(&self.authority).await.context("connect to the API")?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self.connector.connect(name, stream).await.context("TLS to the API")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post(path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).context("read the API's answer")?.to_bytes();
        connection.abort();
        let body = serde_json::from_slice(&body).with_context(|| format!("{path} answered no JSON"))?;
        Ok((status, body))
    }

    /// Calls a path whose success says nothing more.
    pub(super) async fn done(&self, path: &str, body: Value) -> anyhow::Result<()> {
        self.get(path, body, "ok").await.map(drop)
    }

    /// Calls a path and gives one key of a successful answer.
    pub(super) async fn get(&self, path: &str, body: Value, key: &str) -> anyhow::Result<Value> {
        let (status, mut answer) = self.call(path, &body).await?;
        if status != 200 {
            bail!(
                "{path} answered {status}: {}",
                answer["error"]["message"].as_str().unwrap_or("no message")
            );
        }
        Ok(answer[key].take())
    }
}
