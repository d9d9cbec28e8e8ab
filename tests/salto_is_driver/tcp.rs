//! Over real TCP sockets.

use latchd::{
    drivers::salto_is::{Past, SaltoIs},
    seams::Random,
};
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::desk::*;

#[tokio::test]
async fn a_card_is_written_over_tcp_byte_by_byte() {
    let site = Site::open().await;
    let mut server = site.accept().await;
    server.0.set_nodelay(true).unwrap();
    ready(&site.driver).await;
    let script = async {
        server.take(FIRST_CARD).await;
        for byte in frame("CN1|1|04A1B2C3D4E580") {
            server.say(&[byte]).await;
            tokio::task::yield_now().await;
        }
        server.expect(ACK).await;
    };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("04A1B2C3D4E580"));
}

#[tokio::test]
async fn a_connection_that_is_reset_before_a_word_is_held_by_somebody_else() {
    let site = Site::open().await;
    reset(site.accept().await.0);
    line_is(&site.driver, "second_client_refused").await;
    let mut server = site.accept().await;
    server.answer_poll().await;
    ready(&site.driver).await;
}

#[tokio::test]
async fn a_connection_that_is_reset_after_the_frame_is_a_doubt_and_comes_back() {
    let site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let script = async {
        server.take(FIRST_CARD).await;
        reset(server.0);
    };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(end(&performed), "unknown line_lost");
    let mut server = site.accept().await;
    ready(&site.driver).await;
    rested(&site.driver).await;
    success(perform(&site.driver, override_with(card()), server.serve(FIRST_CARD, "CN1|1")).await);
}

struct Site {
    driver: SaltoIs,
    listener: TcpListener,
}

impl Site {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(&format!("tcp = \"{}\"", listener.local_addr().unwrap()), "settle = \"1s\"");
        Self {
            driver: SaltoIs::start(&config, name(), oslo(), Past::Answered, clock(), Random::seeded(7)),
            listener,
        }
    }

    async fn accept(&self) -> Server<TcpStream> {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        Server(accepted.expect("a connection in time").unwrap().0)
    }
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
}
