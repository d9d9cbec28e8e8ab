//! Everything that goes wrong on demand, one by one.

use super::*;

#[tokio::test]
async fn silence_after_enq() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("fault silent-enq").await;
    peer.send(&[0x05, 0x05]).await;
    site.say("wait count ENQ 2").await;
    site.say("fault clear").await;
    peer.send(ENQ).await;
    peer.expect(ACK).await;
    assert_eq!(site.count("sent ACK").await, 1);
}

#[tokio::test]
async fn not_ready() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("fault busy 2").await;
    for reply in [NAK, NAK, ACK] {
        peer.send(ENQ).await;
        peer.expect(reply).await;
    }
}

#[tokio::test]
async fn silence_instead_of_an_acknowledgement_and_nothing_done() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    site.say("fault silent-ack 1").await;
    peer.send(&frame(&check_in("1", "101", ""))).await;
    site.say("wait frames 1").await;
    peer.send(ENQ).await;
    peer.expect(ACK).await;
    assert_eq!(site.say("cards").await["cards"]["anna"]["kind"], "blank");
}

#[tokio::test]
async fn silence_instead_of_an_answer_and_nothing_done() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    site.say("fault silent-answer 1").await;
    peer.send(&frame(&check_in("1", "101", ""))).await;
    peer.expect(ACK).await;
    site.say("wait orders 1").await;
    assert_eq!(site.last_order().await["result"], "silent");
    peer.exchange("LT|1|R", "LT|1|LD").await;
}

#[tokio::test]
async fn a_card_is_written_and_nobody_is_told() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    site.say("fault write-then-silent").await;
    peer.send(&frame(&check_in("1", "101", ""))).await;
    peer.expect(ACK).await;
    site.say("wait orders 1").await;
    assert_eq!(site.last_order().await["result"], "written");
    assert_eq!(site.count("sent CN").await, 0);
    peer.exchange("LT|1|R", &format!("LT|1|101||||CI|0||{STAY}")).await;
}

#[tokio::test]
async fn frames_are_refused_a_number_of_times() {
    let mut site = Site::new().await;
    let mut peer = site.serial();
    site.say("fault nak 2").await;
    for _ in 0..2 {
        peer.send(&frame("CO|0|101")).await;
        peer.expect(NAK).await;
    }
    peer.exchange("CO|0|101", "CO|0").await;
    assert_eq!(site.say("ledger").await["orders"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_encode_is_told_to_fail_and_reading_still_works() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    site.say("fault demo-fail").await;
    peer.exchange("LT|1|R", "LT|1|LD").await;
    peer.exchange(&check_in("1", "101", ""), "EG|1|told to fail").await;
    peer.exchange(&check_in("1", "101", ""), "CN|1").await;
}

#[tokio::test]
async fn an_answer_comes_byte_by_byte() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("fault slow 2").await;
    let started = std::time::Instant::now();
    peer.exchange("CO|0|101", "CO|0").await;
    assert!(started.elapsed() >= Duration::from_millis(2 * 9), "ACK and eight bytes");
}

#[tokio::test]
async fn noise_comes_before_an_answer() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("fault noise 7").await;
    let answer = [b"\x00\xff\x7f\xb3\x0a\x00\xff", &frame("CO|0")[..]].concat();
    peer.ask(&frame("CO|0|101"), &answer).await;
}

#[tokio::test]
async fn an_answer_is_garbled_until_it_is_asked_for_again() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("fault bad-lrc 1").await;
    let mut garbled = frame("CO|0");
    *garbled.last_mut().unwrap() ^= 0x55;
    peer.send(&frame("CO|0|101")).await;
    peer.expect(ACK).await;
    peer.expect(&garbled).await;
    peer.send(NAK).await;
    peer.expect(&frame("CO|0")).await;
}

#[tokio::test]
async fn the_line_hangs_up_after_any_number_of_bytes_either_way() {
    let request = frame("CO|0|101");
    let reply = [ACK, &frame("CO|0")].concat();
    let mut site = Site::new().await;
    for bytes in 0..=request.len() + reply.len() {
        let mut peer = site.tcp().await;
        site.say(&format!("fault close-after-bytes {bytes}")).await;
        let before = site.count("CO").await;
        peer.send(&request).await;
        peer.expect(&reply[..bytes.saturating_sub(request.len())]).await;
        peer.expect_the_end().await;
        site.say("wait conversations 1").await;
        let arrived = site.count("CO").await - before;
        assert_eq!(arrived, u64::from(bytes >= request.len()), "after {bytes} bytes");
    }
    site.tcp().await.exchange("CO|0|101", "CO|0").await;
}

#[tokio::test]
async fn the_line_hangs_up_after_the_acknowledgement_and_the_order_lives_on() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    site.say("fault close-after-ack").await;
    peer.send(&frame(&check_in("1", "101", ""))).await;
    peer.expect(ACK).await;
    peer.expect_the_end().await;
    site.say("wait orders 1").await;
    assert_eq!(site.last_order().await["result"], "written");
    site.tcp().await.exchange("CO|0|101", "CO|0").await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_arrives_in_the_middle_of_the_next_exchange() {
    let (simulator, mut peer) = in_memory(Settings::default());
    let say = async |line: &str| simulator.command(line).await.unwrap();
    say("fault late-answer 5000").await;
    peer.send(&frame("CO|0|999")).await;
    peer.expect(ACK).await;
    say("wait orders 1").await;
    peer.send(ENQ).await;
    peer.expect(ACK).await;
    peer.send(&frame("LT|1|R")).await;
    peer.expect(ACK).await;
    peer.expect(&frame("TD|0")).await;
    say("place anna on 1").await;
    peer.expect(&frame("LT|1|LD")).await;
}

#[tokio::test]
async fn the_serial_line_is_unplugged_and_comes_back_under_its_name() {
    let mut site = Site::new().await;
    let mut peer = site.serial();
    peer.exchange("CO|0|101", "CO|0").await;
    let link = site.front.places().tty.clone().unwrap();
    site.say("unplug").await;
    assert!(!link.exists());
    peer.expect_the_end().await;
    drop(peer);
    site.tcp().await.exchange("CO|0|101", "CO|0").await;
    site.say("replug").await;
    site.serial().exchange("CO|0|101", "CO|0").await;
}

#[tokio::test]
async fn a_serial_line_told_to_hang_up_stays_away_until_replugged() {
    let mut site = Site::new().await;
    let mut peer = site.serial();
    site.say("fault close-after-ack").await;
    peer.send(&frame("CO|0|101")).await;
    // The pty may be gone before its last byte was read.
    site.say("wait conversations 0").await;
    drop(peer);
    site.say("replug").await;
    site.serial().exchange("CO|0|101", "CO|0").await;
    assert_eq!(site.count("CO").await, 2);
}

#[tokio::test]
async fn the_network_is_unplugged_and_comes_back() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    peer.exchange("CO|0|101", "CO|0").await;
    site.say("unplug tcp").await;
    peer.expect_the_end().await;
    site.tcp().await.expect_the_end().await;
    site.serial().exchange("CO|0|101", "CO|0").await;
    site.say("replug tcp").await;
    site.tcp().await.exchange("CO|0|101", "CO|0").await;
}
