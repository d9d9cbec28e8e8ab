//! Against servers written by hand, byte for byte.

use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpListener,
    sync::Mutex,
    time::{Instant, sleep},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    config::SpkiPin,
    seams::{BoxFuture, Listener, MemoryNet, SystemNet},
};

const WITHIN: Duration = Duration::from_secs(90);

fn ask() -> Ask {
    Ask {
        method: Method::POST,
        resource: "/a.asmx".into(),
        headers: vec![("content-type", "text/xml; charset=utf-8".into()), ("soapaction", "\"x\"".into())],
        body: b"<geheim/>".to_vec(),
    }
}

fn config(url: &str) -> HttpConfig {
    HttpConfig { url: url.parse().unwrap(), pin: None, ca_file: None }
}

/// A network of one connection, whose other end the test holds.
struct OneLine(Mutex<Option<DuplexStream>>);

impl Net for OneLine {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async {
            Ok(Box::new(self.0.lock().await.take().expect("one connection")) as Box<dyn Stream>)
        })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        unreachable!("a client does not listen")
    }
}

/// A client, and the server's end of its line, which holds `buffer` bytes on the way.
fn line(buffer: usize, limits: Limits) -> (Client, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(buffer);
    let net = Arc::new(OneLine(Mutex::new(Some(ours))));
    (Client::new(net, &config("http://pms/a.asmx"), limits).unwrap(), theirs)
}

/// What comes of a request where the server reads it and then says `answer` and nothing more; it hangs up if told to.
async fn answered(answer: &[u8], hangs_up: bool) -> Result<Answer, HttpError> {
    let (client, mut server) = line(64 * 1024, Limits::default());
    let asked = async { client.connect().await.unwrap().ask(ask(), WITHIN).await };
    let serving = async {
        hear(&mut server).await;
        server.write_all(answer).await.unwrap();
        if hangs_up {
            drop(server);
        } else {
            std::future::pending::<()>().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! { biased; came = asked => came, () = serving => unreachable!("it never ends") }
}

async fn hear(server: &mut DuplexStream) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"<geheim/>") {
        assert_ne!(server.read_buf(&mut heard).await.unwrap(), 0);
    }
    String::from_utf8(heard).unwrap()
}

const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 4\r\n\r\n<a/>";
const CHUNKED: &[u8] =
    b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n<a\r\n2\r\n/>\r\n0\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_request_is_said_once_and_its_answer_is_heard_whole() {
    let (client, mut server) = line(64 * 1024, Limits::default());
    let connection = client.connect().await.unwrap();
    let serving = async {
        let heard = hear(&mut server).await;
        server.write_all(WHOLE).await.unwrap();
        heard
    };
    let (answer, heard) = tokio::join!(connection.ask(ask(), WITHIN), serving);
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"<a/>".as_slice()));
    assert_eq!(answer.content_type.as_deref(), Some("text/xml"));
    assert!(heard.starts_with("POST /a.asmx HTTP/1.1\r\nHost: pms\r\n"), "{heard}");
    assert!(heard.contains("\r\nContent-Length: 9\r\n"), "{heard}");
    // The connection is not used again.
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(!format!("{answer:?}").contains("<a/>"), "bodies are about people");
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_any_byte_is_none_and_the_request_may_have_left() {
    for whole in [WHOLE, CHUNKED] {
        for cut in 0..whole.len() {
            for hangs_up in [true, false] {
                let came = answered(&whole[..cut], hangs_up).await;
                assert!(came.as_ref().is_err_and(|error| error.may_have_left), "cut at {cut}: {came:?}");
            }
        }
        assert!(answered(whole, true).await.is_ok());
        assert!(answered(whole, false).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_cut_at_any_byte_may_have_left() {
    for taken in 1..90 {
        let (client, mut server) = line(1, Limits::default());
        let asked = async { client.connect().await.unwrap().ask(ask(), WITHIN).await };
        let serving = async {
            for _ in 0..taken {
                server.read_u8().await.unwrap();
            }
            drop(server);
        };
        let (came, ()) = tokio::join!(asked, serving);
        assert!(came.is_err_and(|error| error.may_have_left), "cut after {taken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_or_says_nothing_costs_bounded_time() {
    let (client, _server) = line(1, Limits::default());
    let begun = Instant::now();
    let error = client.connect().await.unwrap().ask(ask(), WITHIN).await.unwrap_err();
    assert!(error.may_have_left && matches!(error.why, Failure::Lost(_)), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10);

    let begun = Instant::now();
    let error = answered(b"", false).await.unwrap_err();
    assert!(error.may_have_left && matches!(error.why, Failure::Silent(WITHIN)), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_drip_is_cut_off_at_the_deadline_of_the_whole_answer() {
    let (client, mut server) = line(64 * 1024, Limits::default());
    let begun = Instant::now();
    let asked = async { client.connect().await.unwrap().ask(ask(), WITHIN).await };
    let serving = async {
        hear(&mut server).await;
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        loop {
            sleep(Duration::from_secs(5)).await;
            server.write_all(b"x").await.unwrap();
        }
    };
    let error =
        tokio::select! { came = asked => came.unwrap_err(), () = serving => unreachable!("it drips on") };
    assert!(matches!(error.why, Failure::Silent(_)), "{error}");
    assert_eq!(begun.elapsed(), WITHIN);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_coming_in_when_its_time_is_over_is_heard_as_long_as_it_does_not_pause() {
    let rest = Duration::from_secs(20);
    // By pauses: so many bytes of a body of hundred, each so many milliseconds after the last.
    for (pause, is_whole, most) in [(250, true, 26), (700, false, 11), (1100, false, 11)] {
        let (client, mut server) = line(64 * 1024, Limits { rest, ..Limits::default() });
        let begun = Instant::now();
        let asked = async { client.connect().await.unwrap().ask(ask(), Duration::from_secs(10)).await };
        let serving = async {
            hear(&mut server).await;
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await.unwrap();
            for _ in 0..100 {
                sleep(Duration::from_millis(pause)).await;
                let _hung_up_on = server.write_all(b"x").await;
            }
            std::future::pending::<()>().await;
        };
        let came = tokio::select! { came = asked => came, () = serving => unreachable!("it never ends") };
        assert_eq!(came.is_ok(), is_whole, "{pause}: {came:?}");
        assert!(begun.elapsed() <= Duration::from_secs(most), "{pause}: {:?}", begun.elapsed());
    }
    // However steadily it drips, there is an end.
    let (client, mut server) = line(64 * 1024, Limits { rest, ..Limits::default() });
    let begun = Instant::now();
    let asked = async { client.connect().await.unwrap().ask(ask(), Duration::from_secs(10)).await };
    let serving = async {
        hear(&mut server).await;
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        loop {
            sleep(Duration::from_millis(300)).await;
            server.write_all(b"x").await.unwrap();
        }
    };
    let error =
        tokio::select! { came = asked => came.unwrap_err(), () = serving => unreachable!("it drips on") };
    assert!(matches!(error.why, Failure::Silent(_)), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn endless_heads_bodies_and_lengths_are_cut_off() {
    async fn flood(head: &[u8], drop: &[u8]) -> (HttpError, usize) {
        let (client, mut server) = line(4096, Limits { body: 10_000, ..Limits::default() });
        let mut said = 0;
        let asked = async { client.connect().await.unwrap().ask(ask(), WITHIN).await };
        let serving = async {
            hear(&mut server).await;
            server.write_all(head).await.unwrap();
            while server.write_all(drop).await.is_ok() {
                said += drop.len();
            }
            std::future::pending::<()>().await;
        };
        let error = tokio::select! { biased; came = asked => came.unwrap_err(), () = serving => unreachable!("flooded") };
        assert!(error.may_have_left);
        (error, said)
    }
    let (error, said) = flood(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1000]).await;
    assert!(matches!(error.why, Failure::TooLong(10_000)) && said < 100_000, "{error}, {said}");
    let (error, said) = flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n").await;
    assert!(matches!(error.why, Failure::TooLong(10_000)) && said < 200_000, "{error}, {said}");
    let (error, _) = flood(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", b"x").await;
    assert!(matches!(error.why, Failure::TooLong(_) | Failure::Malformed(_)), "{error}");
    let (error, _) = flood(b"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\n", b"x").await;
    assert!(matches!(error.why, Failure::TooLong(10_000)), "{error}");
    let (error, said) = flood(b"HTTP/1.1 200 OK\r\n", b"X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n").await;
    assert!(matches!(error.why, Failure::Malformed(_)) && said < 100_000, "{error}, {said}");
    let (error, said) = flood(b"", b"HTTP/1.1 100 Continue").await;
    assert!(matches!(error.why, Failure::Malformed(_)) && said < 100_000, "{error}, {said}");
    let (error, _) = flood(b"SSH-2.0-OpenSSH\r\n", b"x").await;
    assert!(matches!(error.why, Failure::Malformed(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let moved = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answered(moved, false).await.unwrap().status, 302);
}

#[tokio::test(start_paused = true)]
async fn as_long_as_there_is_no_connection_nothing_has_left() {
    let nobody =
        Client::new(Arc::new(MemoryNet::default()), &config("http://pms/"), Limits::default()).unwrap();
    let error = nobody.connect().await.unwrap_err();
    assert!(!error.may_have_left && error.why.code() == "tcp_unreachable", "{error}");

    // As many connections as may be are in use.
    let net = Arc::new(MemoryNet::default());
    let _listener = net.listen("127.0.0.1:80".parse().unwrap()).await.unwrap();
    let limits = Limits { connections: 1, ..Limits::default() };
    let client = Client::new(net, &config("http://pms/"), limits).unwrap();
    let first = client.connect().await.unwrap();
    let error = client.connect().await.unwrap_err();
    assert!(!error.may_have_left && error.why.code() == "line_busy", "{error}");
    drop(first);
    assert!(client.connect().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hung_up_before_the_request_is_told_nothing() {
    let (client, server) = line(64, Limits::default());
    let connection = client.connect().await.unwrap();
    drop(server);
    let error = connection.ask(ask(), WITHIN).await.unwrap_err();
    assert!(!error.may_have_left && matches!(error.why, Failure::Lost(_)), "{error}");
}

/// A server with a certificate of its own that answers every request, its key's pin, and the certificate's file.
async fn tls_server(folder: &std::path::Path) -> (SocketAddr, SpkiPin, std::path::PathBuf) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    let pin = SpkiPin(digest.as_ref().try_into().unwrap());
    let file = folder.join("server.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut heard = Vec::new();
            while !heard.ends_with(b"<geheim/>")
                && stream.read_buf(&mut heard).await.is_ok_and(|count| count > 0)
            {}
            let _hung_up = stream.write_all(WHOLE).await;
        }
    });
    (address, pin, file)
}

#[tokio::test]
async fn over_tls_a_pin_or_an_authority_tells_the_server_and_nothing_leaves_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let (address, pin, file) = tls_server(folder.path()).await;
    let came = async |host: &str, pin: Option<SpkiPin>, ca_file: Option<std::path::PathBuf>| {
        let url = format!("https://{host}:{}/a", address.port()).parse().unwrap();
        let client =
            Client::new(Arc::new(SystemNet), &HttpConfig { url, pin, ca_file }, Limits::default()).unwrap();
        client.connect().await?.ask(ask(), WITHIN).await
    };
    assert_eq!(came("127.0.0.1", Some(pin), None).await.unwrap().status, 200);
    assert_eq!(came("localhost", None, Some(file.clone())).await.unwrap().status, 200);
    for error in [
        came("127.0.0.1", Some(SpkiPin([7; 32])), None).await.unwrap_err(),
        came("127.0.0.1", None, Some(file)).await.unwrap_err(),
    ] {
        assert!(!error.may_have_left && error.why.code() == "tls_refused", "{error}");
    }
    let missing = config("https://pms/");
    let missing = HttpConfig { ca_file: Some(folder.path().join("none.pem")), ..missing };
    assert!(Client::new(Arc::new(SystemNet), &missing, Limits::default()).is_err());
}
