//! What goes wrong.

use std::time::Duration;

use jiff::SignedDuration;
use latchd::store;
use tokio::time::Instant;

use super::{Action, LOCK_COUNT, ROADS, World};
use crate::simulated::{
    net::{Host, Road},
    side::{End, doom},
};

impl World {
    pub(super) async fn trouble(&mut self) {
        if Instant::now() < self.calm_until {
            return;
        }
        let host = self.one(&[Host::Agent, Host::Agent, Host::Cloud]);
        let road = self.one(&ROADS);
        let span = Duration::from_millis(self.one(&[300, 5_000, 40_000, 100_000]));
        match self.random.below(22) {
            0 => self.crash_now(host),
            1..4 => {
                let steps = self.one(&[3, 40, 400, 4_000]);
                let steps = self.random.below(steps);
                let end = self.some_end();
                self.note(format_args!("{host:?} dies {end:?} in {steps} steps"));
                match host {
                    Host::Cloud => {
                        self.cloud.end = end;
                        if let Some(life) = &self.cloud.life {
                            doom(&life.process, steps);
                        }
                    }
                    Host::Agent | Host::Salto | Host::Locks | Host::People => {
                        self.agent.end = end;
                        if let Some(life) = &self.agent.life {
                            doom(&life.process, steps);
                        }
                    }
                }
            }
            4..7 => {
                let changes = self.random.below(60);
                let end = self.some_end();
                self.note(format_args!("{host:?} dies {end:?} at change {changes}"));
                match host {
                    Host::Cloud => self.cloud.end = end,
                    Host::Agent | Host::Salto | Host::Locks | Host::People => self.agent.end = end,
                }
                self.disk(host).die_after(changes);
            }
            7 => {
                self.note("the agent is told to stop");
                self.act_now(Action::StopAgent).await;
            }
            8..10 => {
                self.note(format_args!("the road {road:?} is down for {span:?}"));
                self.network.set_road(road.0, road.1, Road::Down);
                self.after(span, Action::MendRoad(road.0, road.1));
            }
            10 => {
                self.note(format_args!("connections {road:?} are reset"));
                self.network.reset(road.0, road.1);
            }
            11 => {
                self.note(format_args!("connections {road:?} swallow"));
                self.network.swallow(road.0, road.1);
            }
            12 => {
                let below = self.one(&[20, 400, 8_000]);
                let bytes = self.random.below(below);
                self.note(format_args!("connections {road:?} end after {bytes} bytes"));
                self.network.cut_after(road.0, road.1, bytes);
            }
            13 => {
                let bytes = self.one(&[60, 3_000, 20_000]);
                self.note(format_args!("new connections end before {bytes} bytes for {span:?}"));
                self.network.make_fragile(Some(1 + bytes));
                self.after(span, Action::Sturdy);
            }
            14 => self.jump().await,
            15 => {
                let room = self.random.below(30_000) as usize;
                let disk = self.disk(host);
                if disk.storage().free_bytes().unwrap() < u64::MAX {
                    return;
                }
                let health = match host {
                    Host::Cloud => self.cloud.life.as_ref().map(|life| life.db.health()),
                    _ => self.agent.life.as_ref().map(|life| life.queue.health()),
                };
                if health.is_some_and(|health| health.borrow().disk == store::Disk::Room) {
                    self.filled_beside_reserve.insert(host);
                }
                self.note(format_args!("the disk of {host:?} has {room} bytes left for {span:?}"));
                disk.limit(Some(disk.used() + room));
                self.after(span, Action::MendDisk(host));
            }
            16 => {
                let times = 1 + self.random.below(3) as u32;
                self.note(format_args!("{times} syncs of {host:?} fail"));
                self.disk(host).fail_syncs(times);
            }
            17 => match host {
                Host::Cloud => {
                    self.note("the cloud is backed up");
                    self.cloud.backup = Some(self.cloud.disk.image());
                }
                Host::Agent | Host::Salto | Host::Locks | Host::People => {
                    self.note("the agent is backed up");
                    self.agent.backup = Some(self.agent.disk.image());
                }
            },
            18..20 => self.lock_trouble(span).await,
            _ => self.salto_trouble(span).await,
        }
    }

    pub(super) async fn lock_trouble(&mut self, span: Duration) {
        let times = 1 + self.random.below(3);
        let trouble = match self.random.below(14) {
            0 => format!("fault silent {times}"),
            1 => format!("fault deaf {times}"),
            2 => format!("fault slow {} {times}", self.one(&[300, 4_900, 30_000])),
            3 => format!("fault garbage {times}"),
            4 => format!("fault damaged {times}"),
            5 => format!("fault wrong-number {times}"),
            6 => format!("fault cut-before {times}"),
            7 => format!("fault cut-after {times}"),
            8 => format!("fault busy {times}"),
            9 => format!("fault full {times}"),
            10 => format!("fault lie on {} {times}", self.one(&["PUT", "DEL"])),
            11 => format!("fault cut-received {}", self.random.below(200)),
            12 => format!("fault cut-sent {}", self.random.below(200)),
            _ => {
                let jump = self.random.below(20_000) as i64 - 10_000;
                format!("clock set {}", self.cloud_clock.now() + SignedDuration::from_secs(jump))
            }
        };
        let lock = self.random.below(LOCK_COUNT) as usize;
        self.note(format_args!("lock {}: {trouble}", lock + 1));
        self.locks[lock].command(&trouble).await.unwrap();
        self.after(span, Action::MendLocks);
    }

    pub(super) async fn mend_locks(&mut self) {
        self.note("the locks are mended");
        for lock in self.locks.clone() {
            lock.command("fault clear").await.unwrap();
        }
    }

    pub(super) async fn act_now(&mut self, action: Action) {
        Box::pin(self.act(action)).await;
    }

    pub(super) fn some_end(&self) -> End {
        self.one(&[End::Killed, End::Power, End::PowerAndCache])
    }

    pub(super) fn crash_now(&mut self, host: Host) {
        let end = self.some_end();
        self.note(format_args!("{host:?} dies {end:?}"));
        match host {
            Host::Cloud => {
                self.cloud.end = end;
                if let Some(life) = &self.cloud.life {
                    life.process.kill();
                }
            }
            Host::Agent | Host::Salto | Host::Locks | Host::People => {
                self.agent.end = end;
                if let Some(life) = &self.agent.life {
                    life.process.kill();
                }
            }
        }
    }

    pub(super) async fn jump(&mut self) {
        let seconds = self.one(&[2, 300, 86_400 * 3]);
        let seconds = self.random.below(2 * seconds) as i64 - seconds as i64;
        if self.chance(60) {
            let to = self.agent_clock.now() + SignedDuration::from_secs(seconds);
            self.note(format_args!("the agent's clock jumps to {to}"));
            self.agent_clock.jump_to(to);
            self.book.lock().unwrap().clock_jumped = true;
        } else {
            // A lock server that is days off refuses every card.
            let to = self.cloud_clock.now() + SignedDuration::from_secs(seconds.clamp(-3_000, 3_000));
            self.command(&format!("clock set {to}")).await;
        }
    }

    pub(super) async fn salto_trouble(&mut self, span: Duration) {
        let times = 1 + self.random.below(3);
        let fault = match self.random.below(13) {
            0 => format!("silent-enq {times}"),
            1 => format!("silent-ack {times}"),
            2 => format!("silent-answer {times}"),
            3 => format!("busy {times}"),
            4 => format!("nak {times}"),
            5 => format!("bad-lrc {times}"),
            6 => format!("close-after-ack {times}"),
            7 => format!("write-then-silent {times}"),
            8 => format!("late-answer {}", self.one(&[500, 20_000, 90_000])),
            9 => format!("close-after-bytes {}", self.random.below(300)),
            10 => format!("slow {}", 1 + self.random.below(30)),
            11 => format!("noise {}", self.random.below(40)),
            _ => format!("error {} {times}", self.one(&["TD", "EV", "OV", "EG", "EF", "NC"])),
        };
        self.command(&format!("fault {fault}")).await;
        self.after(span, Action::MendSalto);
    }

    pub(super) async fn command(&mut self, command: &str) {
        self.note(format_args!("salto: {command}"));
        self.salto.command(command).await.unwrap();
    }
}
