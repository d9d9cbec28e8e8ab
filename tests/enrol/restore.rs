//! A cloud whose database was put back, and who may come in then.

use std::{fs, path::Path};

use latchd::{
    cloud::{
        admin::{BridgeState, Request, Response},
        store::{Db, FILE, Restored},
    },
    model::BridgeId,
    seal::SealKey,
    seams::{Random, Storage},
    store::back_up,
};
use serde_json::json;

use super::world::{Admission, Peer, Site, World, accepting, key_id};

fn backup(world: &World, to: &Path) {
    back_up(&Storage::folder(world.folder.path()), FILE, to).unwrap();
}

fn restore(folder: &Path, from: &Path) -> Restored {
    let random = Random::system();
    let seal = SealKey::from_file(&folder.join("seal.key"), random.clone()).unwrap();
    Db::restore(&Storage::folder(folder), seal, random, from, jiff::Timestamp::now()).unwrap()
}

fn cloud_database(folder: &Path) -> Db {
    let random = Random::system();
    let seal = SealKey::from_file(&folder.join("seal.key"), random.clone()).unwrap();
    Db::open(&Storage::folder(folder), seal, random).unwrap()
}

/// What a lost disk leaves: the keys that were kept elsewhere, and no database.
fn lose_database(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(FILE) {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(!folder.join(FILE).exists());
}

impl World {
    async fn cut_off(&self, bridge: BridgeId) {
        let request = Request::Revoke { bridge_id: bridge, why: None, by: "night porter".into() };
        self.ask(request).await.unwrap();
    }

    async fn stands(&self, bridge: BridgeId) -> BridgeState {
        let Response::Bridges { bridges, .. } = self.ask(Request::Bridges { workspace: None }).await.unwrap()
        else {
            panic!()
        };
        bridges.iter().find(|line| line.bridge_id == bridge).unwrap().state
    }

    /// Comes in, says hello, and hears the answer.
    async fn greeted(&self, site: &Site, admission: &Admission) -> (Peer, serde_json::Value) {
        let known: Vec<_> = admission.cloud_keys.iter().map(|key| key_id(key)).collect();
        let mut peer = self.knock(site, admission).await.unwrap();
        peer.hello(&known).await;
        let heard = peer.hear().await.unwrap().frame;
        (peer, heard)
    }
}

#[tokio::test]
async fn hardware_that_takes_anothers_place_begins_an_epoch_though_nothing_was_ever_acknowledged() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let empty = json!({"epoch": 0, "n": 0});
    let answer = async |site: &Site, admission: &Admission, held: &serde_json::Value| {
        let known: Vec<_> = admission.cloud_keys.iter().map(|key| key_id(key)).collect();
        let mut peer = world.knock(site, admission).await.unwrap();
        peer.hello_holding(&known, held.clone()).await;
        let frame = peer.hear().await.unwrap().frame;
        (frame["orders_resume_after"]["epoch"].clone(), frame["orders_epoch_reason"].clone())
    };
    // The same box, that has yet to hear its first welcome.
    for _ in 0..2 {
        assert_eq!(answer(&site, &paired, &empty).await, (json!(1), json!(null)));
    }
    let invited = world.invite(super::world::replacing(paired.bridge, true)).await;
    let next = Site::new();
    let admission = next.admission(&world.post("/bridge/v1/pair", &next.pair(&invited.code)).await);
    assert_eq!(answer(&next, &admission, &empty).await, (json!(2), json!("receiver_behind")));
    assert_eq!(answer(&next, &admission, &empty).await, (json!(2), json!(null)));
    // The same box that is only paired once more shows by what it holds that it is no other.
    let invited = world.invite(super::world::replacing(paired.bridge, true)).await;
    let again = Site::new();
    let admission = again.admission(&world.post("/bridge/v1/pair", &again.pair(&invited.code)).await);
    let held = json!({"epoch": 2, "n": 0});
    assert_eq!(answer(&again, &admission, &held).await, (json!(2), json!(null)));
    world.stop().await;
}

#[tokio::test]
async fn what_was_revoked_or_renewed_since_a_backup_stays_so_when_the_backup_is_put_back() {
    let world = World::start().await;
    let (stolen, of_stolen) = world.paired().await;
    let (site, paired) = world.paired().await;
    let open = world.invite(accepting()).await;
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("copy.db");
    backup(&world, &copy);
    world.cut_off(of_stolen.bridge).await;
    let next = Site::new();
    let renewed = next.admission(&world.post("/bridge/v1/renew", &site.renew(paired.bridge, &next)).await);
    let folder = world.stop_and_keep().await;
    let key = cloud_database(folder.path()).api_keys().unwrap().remove(0).key_id;
    assert!(cloud_database(folder.path()).revoke_api_key(jiff::Timestamp::now(), &key).unwrap());

    let restored = restore(folder.path(), &copy);
    assert_eq!(restored.unvouched, [], "the database that was there knows");
    assert!(restored.knows_api_keys);
    let keys = cloud_database(folder.path()).api_keys().unwrap();
    assert!(keys.iter().find(|row| row.key_id == key).unwrap().revoked_at.is_some());
    let world = World::start_in(folder).await;
    assert_eq!(world.stands(of_stolen.bridge).await, BridgeState::Revoked);
    assert_eq!(world.knock(&stolen, &of_stolen).await.err().as_deref(), Some("401"));
    let renewal = world.post("/bridge/v1/renew", &stolen.renew(of_stolen.bridge, &Site::new())).await;
    assert_eq!(renewal.refusal(), (403, "revoked".into()));
    world.welcomed(&next, &renewed).await;
    // A code that may have been used since is over.
    let late = world.post("/bridge/v1/pair", &Site::new().pair(&open.code)).await;
    assert_eq!(late.refusal(), (403, "code_invalid".into()));
    world.stop().await;
}

#[tokio::test]
async fn without_the_database_that_knew_no_bridge_comes_in_before_a_person_has_vouched_for_it() {
    let world = World::start().await;
    let (stolen, of_stolen) = world.paired().await;
    let (site, paired) = world.paired().await;
    let (other, of_other) = world.paired().await;
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("copy.db");
    backup(&world, &copy);
    world.cut_off(of_stolen.bridge).await;
    let next = Site::new();
    let renewed = next.admission(&world.post("/bridge/v1/renew", &other.renew(of_other.bridge, &next)).await);
    let folder = world.stop_and_keep().await;

    lose_database(folder.path());
    let restored = restore(folder.path(), &copy);
    let unvouched: Vec<_> = restored.unvouched.iter().map(|unvouched| unvouched.bridge).collect();
    assert_eq!(unvouched, [of_stolen.bridge, paired.bridge, of_other.bridge]);
    assert!(!restored.knows_api_keys);
    let world = World::start_in(folder).await;
    for (site, admission) in [(&stolen, &of_stolen), (&site, &paired)] {
        assert_eq!(world.stands(admission.bridge).await, BridgeState::Unvouched);
        let (_, heard) = world.greeted(site, admission).await;
        assert_eq!((&heard["type"], &heard["code"]), (&"refused".into(), &"standing_unknown".into()));
    }
    // Nor by a new certificate.
    let fresh = Site::new();
    let reply = world.post("/bridge/v1/renew", &stolen.renew(of_stolen.bridge, &fresh)).await;
    let of_fresh = fresh.admission(&reply);
    let (_, heard) = world.greeted(&fresh, &of_fresh).await;
    assert_eq!(heard["code"], "standing_unknown");

    let vouch = |bridge| Request::Vouch { bridge_id: bridge, by: "night porter".into() };
    world.ask(vouch(paired.bridge)).await.unwrap();
    world.welcomed(&site, &paired).await;
    assert_eq!(world.refused(vouch(paired.bridge)).await.0, "not_unvouched");
    world.cut_off(of_stolen.bridge).await;
    assert_eq!(world.refused(vouch(of_stolen.bridge)).await.0, "not_unvouched");
    for (keys, admission) in [(&stolen, &of_stolen), (&fresh, &of_fresh)] {
        assert_eq!(world.knock(keys, admission).await.err().as_deref(), Some("401"));
    }
    // One that renewed in between is unknown, whoever vouches: it is paired again.
    world.ask(vouch(of_other.bridge)).await.unwrap();
    assert_eq!(world.knock(&next, &renewed).await.err().as_deref(), Some("401"));
    let invited = world.invite(super::world::replacing(of_other.bridge, false)).await;
    let again = Site::new();
    let admission = again.admission(&world.post("/bridge/v1/pair", &again.pair(&invited.code)).await);
    world.welcomed(&again, &admission).await;
    world.stop().await;
}

#[tokio::test]
async fn who_was_revoked_between_an_older_database_and_the_backup_stays_revoked() {
    let world = World::start().await;
    let (stolen, of_stolen) = world.paired().await;
    let (_, replaced) = world.paired().await;
    let kept = tempfile::tempdir().unwrap();
    let (old, new) = (kept.path().join("old.db"), kept.path().join("new.db"));
    backup(&world, &old);
    world.pass(std::time::Duration::from_secs(60));
    // Neither was heard of since.
    world.cut_off(of_stolen.bridge).await;
    world.cut_off(replaced.bridge).await;
    backup(&world, &new);
    let folder = world.stop_and_keep().await;

    lose_database(folder.path());
    fs::copy(&old, folder.path().join(FILE)).unwrap();
    assert_eq!(restore(folder.path(), &new).unvouched, []);
    let world = World::start_in(folder).await;
    assert_eq!(world.stands(of_stolen.bridge).await, BridgeState::Revoked);
    assert_eq!(world.knock(&stolen, &of_stolen).await.err().as_deref(), Some("401"));
    // And one that was paired anew after it was revoked is not taken for revoked, where that is known. Each world begins at
    // the same hour.
    world.pass(std::time::Duration::from_secs(3600));
    let invited = world.invite(super::world::replacing(replaced.bridge, false)).await;
    let again = Site::new();
    let admission = again.admission(&world.post("/bridge/v1/pair", &again.pair(&invited.code)).await);
    let folder = world.stop_and_keep().await;
    restore(folder.path(), &new);
    let world = World::start_in(folder).await;
    assert_eq!(world.stands(of_stolen.bridge).await, BridgeState::Revoked);
    world.welcomed(&again, &admission).await;
    world.stop().await;
}

#[tokio::test]
async fn a_database_older_than_the_backup_vouches_for_nobody_and_still_keeps_out_whom_it_knows_as_revoked() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let (_, away) = world.paired().await;
    world.cut_off(away.bridge).await;
    let kept = tempfile::tempdir().unwrap();
    let (old, new) = (kept.path().join("old.db"), kept.path().join("new.db"));
    backup(&world, &old);
    world.pass(std::time::Duration::from_secs(60));
    drop(world.welcomed(&site, &paired).await);
    while world.stands(paired.bridge).await == BridgeState::Connected {
        tokio::task::yield_now().await;
    }
    backup(&world, &new);
    let folder = world.stop_and_keep().await;

    lose_database(folder.path());
    fs::copy(&old, folder.path().join(FILE)).unwrap();
    let restored = restore(folder.path(), &new);
    let unvouched: Vec<_> = restored.unvouched.iter().map(|unvouched| unvouched.bridge).collect();
    assert_eq!(unvouched, [paired.bridge]);
    let world = World::start_in(folder).await;
    assert_eq!(world.stands(away.bridge).await, BridgeState::Revoked);
    world.stop().await;
}
