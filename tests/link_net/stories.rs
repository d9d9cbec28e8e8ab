//! What goes wrong between a site and its cloud, one story each.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use latchd::{
    config::{Pins, SpkiPin},
    link::{self, Route},
    model::Private,
    seams::Random,
};
use tokio::time::sleep;

use super::{
    names::{Answer, Place},
    net::{Host, Road},
    peers::{Cloud, Manner, Proxy, ProxyManner},
    world::{BOUND, CLOUD, CLOUD_URL, Told, World, tell},
};

const MINUTE: Duration = Duration::from_secs(60);
/// A dead peer is noticed within this.
const NOTICED: Duration = Duration::from_secs(45);
/// An attempt ends within this.
const ATTEMPT: Duration = Duration::from_secs(31);

fn open() -> Road {
    Road::Open(Duration::from_millis(10))
}

fn by_proxy() -> Route {
    Route::to(CLOUD_URL).unwrap().through(link::Proxy::new("proxy.example", 3128))
}

async fn with_proxy(world: &World, manner: ProxyManner) -> Proxy {
    world.names.answer("proxy.example", Answer::At(vec!["192.0.2.9".parse().unwrap()]));
    // The proxy alone knows where the cloud is.
    world.names.answer(CLOUD, Answer::Unknown);
    Proxy::start(world, manner).await
}

async fn five_minutes_of_outage(world: World) {
    let _cloud = Cloud::start(&world, Manner::Welcomes).await;
    let mut agent = world.link();
    agent.up(BOUND).await;
    agent.stands(2 * MINUTE).await;
    assert!(world.noted("cloud is pinged") >= 7);
    world.network.set_road(Host::Agent, Host::Cloud, Road::Down);
    let until = world.now() + 5 * MINUTE;
    agent.down("link_silent", NOTICED).await;
    while world.now() + BOUND + ATTEMPT < until {
        agent.down("link_connect_timeout", BOUND + ATTEMPT).await;
    }
    sleep(until - world.now()).await;
    world.network.set_road(Host::Agent, Host::Cloud, open());
    agent.up(BOUND).await;
    agent.stands(10 * MINUTE).await;
}

#[test]
fn five_minutes_of_outage_end_in_a_link_that_stands() {
    let told = tell(1, five_minutes_of_outage);
    assert_ne!(told, tell(2, five_minutes_of_outage), "another seed waits differently");
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_noticed_within_45_seconds() {
    tell(3, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let mut agent = world.link();
        agent.up(BOUND).await;
        for _ in 0..5 {
            agent.stands(MINUTE).await;
            world.network.swallow(Host::Agent, Host::Cloud);
            agent.down("link_silent", NOTICED).await;
            agent.up(Duration::from_secs(2)).await;
        }
    });
}

#[test]
fn a_line_that_loses_much_is_slow_and_stands() {
    tell(4, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        // As TCP shows loss: nothing for a while, and then all of it.
        let (network, random) = (world.network.clone(), Random::seeded(4));
        tokio::spawn(async move {
            loop {
                let road = Road::Open(Duration::from_millis(50 + random.below(500)));
                network.set_road(Host::Agent, Host::Cloud, road);
                sleep(Duration::from_millis(100 + random.below(400))).await;
                network.set_road(Host::Agent, Host::Cloud, Road::Down);
                sleep(Duration::from_millis(200 + random.below(3000))).await;
            }
        });
        let mut agent = world.link();
        agent.up(ATTEMPT).await;
        agent.stands(10 * MINUTE).await;
        assert!(world.noted("cloud is pinged") > 30);
    });
}

#[test]
fn slow_tls_is_waited_for_and_endless_tls_is_not() {
    tell(5, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Slow(Duration::from_secs(12))).await;
        let mut agent = world.link();
        agent.up(Duration::from_secs(26)).await;
        cloud.now(Manner::Slow(Duration::from_secs(40)));
        world.network.reset(Host::Agent, Host::Cloud);
        agent.down("link_closed", Duration::from_secs(1)).await;
        agent.down("link_tls_silent", BOUND + ATTEMPT).await;
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
    });
}

#[test]
fn a_server_that_takes_the_connection_and_says_nothing_is_named_by_how_far_it_came() {
    tell(6, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Mute).await;
        let mut agent = world.link();
        for (manner, code) in [
            (Manner::Mute, "link_tls_silent"),
            (Manner::MuteInTls, "link_http_silent"),
            (Manner::DoesNotWelcome, "link_not_welcomed"),
        ] {
            cloud.now(manner);
            agent.down(code, BOUND + ATTEMPT).await;
        }
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
    });
}

/// Drives a link into an answer and gives how long it then waits for its next attempt.
async fn wait_after(world: &World, answer: &str, code: &str) -> Duration {
    let cloud = Cloud::start(world, Manner::Answers(answer.into())).await;
    let mut agent = world.link();
    agent.down(code, BOUND).await;
    let asked = world.last("cloud is called");
    cloud.now(Manner::Welcomes);
    agent.up(10 * MINUTE).await;
    world.last("cloud is called") - asked
}

#[test]
fn a_wish_to_be_asked_later_is_honoured_and_bounded() {
    let date = "Date: Sun, 22 Nov 2026 12:00:00 GMT\r\nRetry-After: Sun, 22 Nov 2026 12:01:40 GMT";
    for (seed, status, field, least, most) in [
        (10, "429 Too Many Requests", "Retry-After: 100", 100, 126),
        (11, "503 Service Unavailable", "Retry-After: 100", 100, 126),
        (12, "503 Service Unavailable", date, 100, 126),
        (13, "429 Too Many Requests", "Retry-After: 999999999", 240, 300),
        (14, "503 Service Unavailable", "Retry-After: Wed, 01 Jan 3000 00:00:00 GMT", 240, 300),
        (15, "503 Service Unavailable", "Retry-After: whenever", 0, 2),
        (16, "429 Too Many Requests", "X: y", 0, 2),
    ] {
        let code = if status.starts_with("429") { "link_too_many" } else { "link_unavailable" };
        let answer = format!("HTTP/1.1 {status}\r\n{field}\r\nContent-Length: 0\r\n\r\n");
        tell(seed, async |world: World| {
            let waited = wait_after(&world, &answer, code).await;
            let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
            assert!(bounds.contains(&waited), "{answer}: {waited:?}");
        });
    }
}

#[test]
fn every_answer_of_http_is_named() {
    let html = "200 OK\r\nContent-Type: text/html; charset=utf-8";
    let table = [
        ("401 Unauthorized", "link_token_refused", "token_file"),
        ("403 Forbidden", "link_forbidden", "ask"),
        ("404 Not Found", "link_not_latchd", "404"),
        ("407 Proxy Authentication Required", "link_proxy_auth", "proxy_credentials_file"),
        ("426 Upgrade Required", "link_upgrade_required", "update"),
        ("429 Too Many Requests", "link_too_many", "later"),
        ("500 Internal Server Error", "link_unavailable", "500"),
        ("502 Bad Gateway", "link_unavailable", "502"),
        ("504 Gateway Timeout", "link_unavailable", "504"),
        ("302 Found\r\nLocation: https://login.example/", "link_captive_portal", "login.example"),
        (html, "link_captive_portal", "log in"),
        ("511 Network Authentication Required", "link_captive_portal", "log in"),
        ("200 OK", "link_not_latchd", "200"),
        ("418 I'm a teapot", "link_not_latchd", "418"),
    ];
    tell(20, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Mute).await;
        let mut agent = world.link();
        for (status, code, words) in table {
            cloud.now(Manner::Answers(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")));
            let message = agent.down(code, BOUND + ATTEMPT).await;
            assert!(message.contains(words), "{status}: {message}");
        }
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
    });
}

#[test]
fn what_is_not_tls_is_named() {
    let table: [(&[u8], _, _); 5] = [
        (b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n", "link_captive_portal", "log in"),
        (b"<!DOCTYPE html><html><body>Welcome to Hotel Fjord", "link_captive_portal", "log in"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "link_not_latchd", "TLS"),
        // A fatal alert: protocol_version.
        (&[0x15, 3, 1, 0, 2, 2, 70], "link_tls_version", "1.2"),
        // A fatal alert: access_denied.
        (&[0x15, 3, 3, 0, 2, 2, 49], "link_tls_refused", "AccessDenied"),
    ];
    tell(21, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Mute).await;
        let mut agent = world.link();
        for (bytes, code, words) in table {
            cloud.now(Manner::Says(bytes));
            let message = agent.down(code, BOUND + ATTEMPT).await;
            assert!(message.contains(words), "{message}");
        }
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
    });
}

fn close_codes() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let code = |number: u16| number.to_be_bytes().to_vec();
    let table = [
        (1000, "link_closed", "1000"),
        (1001, "link_closed", "restarts"),
        (1002, "link_closed_protocol", "1002"),
        (1003, "link_closed_protocol", "1003"),
        (1007, "link_closed_protocol", "1007"),
        (1008, "link_closed_policy", "ask who runs the cloud"),
        (1009, "link_closed_too_large", "1009"),
        (1010, "link_closed_protocol", "extension"),
        (1011, "link_cloud_failed", "1011"),
        (1012, "link_cloud_restarting", "restarts"),
        (1013, "link_cloud_busy", "1013"),
        // No frame may carry these, or the websocket library thinks so: the protocol is broken.
        (1014, "link_closed_protocol", "1002"),
        (1004, "link_closed_protocol", "1002"),
        (1005, "link_closed_protocol", "1002"),
        (1006, "link_closed_protocol", "1002"),
        (1015, "link_closed_protocol", "1002"),
        (3000, "link_token_refused", "3000"),
        (3003, "link_forbidden", "3003"),
        (3008, "link_closed", "3008"),
        (3999, "link_closed", "3999"),
        (4711, "link_closed", "4711"),
    ];
    let mut all: Vec<_> =
        table.into_iter().map(|(number, name, words)| (code(number), name, words)).collect();
    all.push((Vec::new(), "link_closed", "closed"));
    let mut spoken = code(1008);
    spoken.extend(b"bad \x1b[2J bridge");
    all.push((spoken, "link_closed_policy", "bad \\u{1b}[2J bridge"));
    all
}

#[test]
fn every_close_code_is_named_and_the_link_comes_back() {
    tell(22, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Welcomes).await;
        let mut agent = world.link();
        for (payload, code, words) in close_codes() {
            cloud.now(Manner::Closes(payload));
            agent.up(BOUND + Duration::from_secs(30)).await;
            let message = agent.down(code, Duration::from_secs(1)).await;
            assert!(message.contains(words), "{message}");
        }
        cloud.now(Manner::Drops);
        agent.up(BOUND).await;
        agent.down("link_closed", Duration::from_secs(1)).await;
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
        agent.stands(10 * MINUTE).await;
    });
}

#[test]
fn a_cloud_that_restarts_or_has_too_much_to_do_gets_the_time_the_registry_asks_for() {
    for (number, least, most) in [(1012_u16, 5, 31), (1013, 30, 61), (1001, 0, 2)] {
        for seed in 30..40 {
            tell(seed, async |world: World| {
                let cloud = Cloud::start(&world, Manner::Closes(number.to_be_bytes().into())).await;
                let mut agent = world.link();
                agent.up(BOUND).await;
                assert!(matches!(agent.told(MINUTE).await, Told::Down(_)));
                let ended = world.now();
                cloud.now(Manner::Welcomes);
                agent.up(2 * MINUTE).await;
                let waited = world.last("cloud is called") - ended;
                let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
                assert!(bounds.contains(&waited), "{number}: {waited:?}");
            });
        }
    }
}

#[test]
fn names_that_are_not_there_and_servers_that_do_not_answer_are_two_things_and_both_pass() {
    tell(40, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let mut agent = world.link();
        for (answer, code, words) in [
            (Answer::Unknown, "link_name_unknown", "cloud.example does not exist"),
            (Answer::Fails, "link_dns_silent", "SERVFAIL"),
            (Answer::Silent, "link_dns_silent", "no name server answers for cloud.example"),
        ] {
            world.names.answer(CLOUD, answer);
            let message = agent.down(code, BOUND + ATTEMPT).await;
            assert!(message.contains(words), "{message}");
        }
        world.names.answer(CLOUD, Answer::At(vec!["192.0.2.1".parse().unwrap()]));
        agent.up(BOUND).await;
    });
}

#[test]
fn one_good_address_among_bad_ones_is_found_within_a_second() {
    tell(41, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let all = ["2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.1"];
        for (address, place) in
            [("2001:db8::1", Place::Dead), ("192.0.2.2", Place::Refuses), ("2001:db8::2", Place::NoRoute)]
        {
            world.names.place(address, place);
        }
        let all: Vec<IpAddr> = all.into_iter().map(|address| address.parse().unwrap()).collect();
        world.names.answer(CLOUD, Answer::At(all.clone()));
        let mut agent = world.link();
        agent.up(Duration::from_secs(1)).await;
        drop(agent);
        for (place, code, words) in [
            (Place::Refuses, "link_port_closed", "cloud.example:443"),
            (Place::NoRoute, "link_unreachable", "cloud.example:443"),
            (Place::Dead, "link_connect_timeout", "cloud.example:443"),
        ] {
            for address in &all {
                world.names.place(&address.to_string(), place);
            }
            let mut agent = world.link();
            let message = agent.down(code, ATTEMPT).await;
            assert!(message.contains(words), "{message}");
            world.names.place("192.0.2.1", Place::Here);
            agent.up(BOUND).await;
        }
    });
}

#[test]
fn a_dead_first_address_gives_way_to_the_next_and_is_preferred_again_later() {
    tell(42, async |world: World| {
        let first = Cloud::start(&world, Manner::Mute).await;
        let acceptor = world.authority.acceptor("cloud-2.example", 2000..2100);
        let second = Cloud::start_at(&world, "second", 444, acceptor, Manner::Welcomes).await;
        world.names.answer("cloud-2.example", Answer::At(vec!["192.0.2.1".parse().unwrap()]));
        let route = Route::to(CLOUD_URL).unwrap().or("wss://cloud-2.example:444").unwrap();
        let mut agent = world.link_by(route);
        assert_eq!(agent.up(ATTEMPT).await.as_deref(), Some("cloud-2.example:444"));
        // The first one being well again is no reason to leave the second.
        first.now(Manner::Welcomes);
        agent.stands(10 * MINUTE).await;
        world.network.reset(Host::Agent, Host::Cloud);
        assert_eq!(agent.up(Duration::from_secs(2)).await, None);
        agent.stands(2 * MINUTE).await;
        first.now(Manner::Mute);
        second.now(Manner::Answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into()));
        world.network.reset(Host::Agent, Host::Cloud);
        agent.down("link_closed", Duration::from_secs(1)).await;
        let message = agent.down("link_tls_silent", 2 * ATTEMPT).await;
        assert!(message.contains("cloud.example:443: ") && message.contains("; cloud-2.example:444: "));
        assert!(message.contains("403"), "{message}");
        second.now(Manner::Welcomes);
        assert!(agent.up(BOUND + ATTEMPT).await.is_some());
    });
}

#[test]
fn a_proxy_that_demands_to_know_who_we_are_is_told_or_named() {
    tell(50, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let _proxy = with_proxy(&world, ProxyManner::Demands("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")).await;
        let mut agent = world.link_by(by_proxy());
        let message = agent.down("link_proxy_auth", BOUND).await;
        assert!(message.contains("\"Fjord\"") && message.contains("proxy_credentials_file"), "{message}");
        assert!(message.contains("proxy.example:3128"), "{message}");
        let proxy = |credentials: &str| {
            let proxy = link::Proxy::new("proxy.example", 3128);
            let proxy = proxy.with_credentials(&Private::new(credentials)).unwrap();
            Route::to(CLOUD_URL).unwrap().through(proxy)
        };
        let mut agent = world.link_by(proxy("Aladdin:closed"));
        let message = agent.down("link_proxy_auth", BOUND).await;
        assert!(message.contains("does not take") && !message.contains("closed"), "{message}");
        let mut agent = world.link_by(proxy("Aladdin:open sesame"));
        agent.up(BOUND).await;
        agent.stands(10 * MINUTE).await;
        assert_eq!(world.noted("cloud is called"), 1);
    });
}

#[test]
fn a_proxy_that_hangs_or_is_none_is_named_and_the_link_comes_back() {
    tell(51, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let mut agent = world.link_by(by_proxy());
        agent.down("link_proxy_name_unknown", BOUND).await;
        let proxy = with_proxy(&world, ProxyManner::Hangs).await;
        world.names.place("192.0.2.9", Place::Dead);
        agent.down("link_proxy_unreachable", BOUND + ATTEMPT).await;
        world.names.place("192.0.2.9", Place::Here);
        for (manner, code) in [
            (ProxyManner::Hangs, "link_proxy_silent"),
            (ProxyManner::HangsAfter("HTTP/1.1 200 Connection est"), "link_proxy_silent"),
            (ProxyManner::Answers(""), "link_proxy_closed"),
            (ProxyManner::Answers("HTTP/1.1 2"), "link_proxy_closed"),
            (ProxyManner::Answers("SSH-2.0-OpenSSH_9.9\r\n"), "link_proxy_not_http"),
            (ProxyManner::Answers("HTTP/1.1 200 OK\r\n\r\n<html>"), "link_proxy_not_http"),
            (ProxyManner::Answers("HTTP/1.1 403 Forbidden\r\n\r\n"), "link_proxy_forbidden"),
            (ProxyManner::Answers("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "link_proxy_cloud_unreachable"),
            (ProxyManner::Answers("HTTP/1.1 302 x\r\nLocation: http://l/\r\n\r\n"), "link_captive_portal"),
            (ProxyManner::Answers("HTTP/1.1 200 OK\r\n\r\n"), "link_tls_failed"),
        ] {
            proxy.now(manner);
            agent.down(code, BOUND + ATTEMPT).await;
        }
        proxy.now(ProxyManner::Tunnels);
        agent.up(BOUND + Duration::from_secs(2)).await;
        agent.stands(10 * MINUTE).await;
    });
}

#[test]
fn a_host_that_needs_no_proxy_is_reached_without() {
    tell(52, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let proxy = link::Proxy::new("proxy.example", 3128).except(vec!["*.example".parse().unwrap()]);
        let mut agent = world.link_by(Route::to(CLOUD_URL).unwrap().through(proxy));
        agent.up(BOUND).await;
    });
}

#[test]
fn inspection_is_named_with_who_does_it_and_never_worked_round() {
    tell(53, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let inspects = ProxyManner::Inspects(world.filter.acceptor(CLOUD, 2000..2100));
        let proxy = with_proxy(&world, inspects).await;
        let mut agent = world.link_by(by_proxy());
        for _ in 0..5 {
            let message = agent.down("link_tls_inspected", BOUND + ATTEMPT).await;
            assert!(message.contains("\"Web Filter CA\"") && message.contains("exempt"), "{message}");
        }
        assert_eq!(world.noted("cloud is called"), 0);
        proxy.now(ProxyManner::Tunnels);
        agent.up(BOUND + Duration::from_secs(2)).await;
    });
}

#[test]
fn a_key_that_is_not_pinned_is_refused_whoever_vouches_for_it() {
    tell(54, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let pins = Pins::new(vec![SpkiPin([1; 32]), SpkiPin([2; 32])]).unwrap();
        let mut agent = world.link_with(Route::to(CLOUD_URL).unwrap(), Some(pins), 54);
        let message = agent.down("link_tls_not_pinned", BOUND).await;
        assert!(message.contains("\"Cloud CA\"") && message.contains("`pins`"), "{message}");
        assert_eq!(world.noted("hears hello"), 0);
    });
}

#[test]
fn a_wrong_clock_is_named_and_the_link_comes_up_once_it_is_right() {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    tell(60, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Welcomes).await;
        cloud.shows(world.authority.acceptor(CLOUD, 2026..2028));
        // Behind, as after a power cut without a battery.
        world.clock.jump_to(time("2000-01-01T00:00:00Z"));
        let mut agent = world.link();
        for _ in 0..3 {
            let message = agent.down("link_clock_wrong", BOUND).await;
            assert!(message.contains("clock") && message.contains("2000-01-01"), "{message}");
        }
        world.clock.jump_to(time("2026-11-22T12:05:00Z"));
        agent.up(BOUND).await;
        agent.stands(2 * MINUTE).await;
        // Ahead: the cloud has told what time it is.
        world.clock.jump_to(time("2035-01-01T00:00:00Z"));
        agent.stands(2 * MINUTE).await;
        world.network.reset(Host::Agent, Host::Cloud);
        agent.down("link_closed", Duration::from_secs(1)).await;
        let message = agent.down("link_clock_wrong", BOUND).await;
        assert!(message.contains("2035-01-01") && message.contains("it is 2026-11-22"), "{message}");
        world.clock.jump_to(time("2026-11-22T12:30:00Z"));
        agent.up(BOUND).await;
    });
}

#[test]
fn a_certificate_out_of_its_time_is_told_from_a_clock_that_is_surely_wrong() {
    tell(61, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Welcomes).await;
        cloud.shows(world.authority.acceptor(CLOUD, 2020..2024));
        let mut agent = world.link();
        let message = agent.down("link_tls_expired", BOUND).await;
        assert!(message.contains("if the clock is right"), "{message}");
        cloud.shows(world.authority.acceptor(CLOUD, 2030..2034));
        let message = agent.down("link_tls_not_yet_valid", BOUND).await;
        assert!(message.contains("clock is behind"), "{message}");
        cloud.shows(world.filter.acceptor("stranger.example", 2000..2100));
        agent.down("link_tls_untrusted", BOUND).await;
        cloud.shows(world.authority.acceptor("stranger.example", 2000..2100));
        agent.down("link_tls_wrong_name", BOUND).await;
        cloud.shows(world.authority.acceptor(CLOUD, 2000..2100));
        agent.up(BOUND).await;
    });
}

#[test]
fn a_first_setup_ends_at_once_where_trying_again_cannot_help_and_only_there() {
    tell(70, async |world: World| {
        let cloud = Cloud::start(&world, Manner::Welcomes).await;
        let first_setup = || world.link_by(Route::to(CLOUD_URL).unwrap().first_setup());
        cloud.shows(world.filter.acceptor(CLOUD, 2000..2100));
        first_setup().gave_up("link_tls_inspected").await;
        cloud.shows(world.authority.acceptor(CLOUD, 2000..2100));
        cloud.now(Manner::Answers("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into()));
        first_setup().gave_up("link_token_refused").await;
        world.names.answer(CLOUD, Answer::Unknown);
        first_setup().gave_up("link_name_unknown").await;
        // What may pass is waited for.
        world.names.answer(CLOUD, Answer::Fails);
        let mut agent = first_setup();
        agent.down("link_dns_silent", BOUND).await;
        world.names.answer(CLOUD, Answer::At(vec!["192.0.2.1".parse().unwrap()]));
        cloud.now(Manner::Mute);
        agent.down("link_tls_silent", BOUND + ATTEMPT).await;
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
        // The setup is done: from now on nothing ends the link.
        cloud.now(Manner::Answers("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into()));
        world.network.reset(Host::Agent, Host::Cloud);
        agent.down("link_closed", Duration::from_secs(1)).await;
        agent.down("link_token_refused", BOUND).await;
        cloud.now(Manner::Welcomes);
        agent.up(BOUND).await;
    });
}
