//! A lock that belongs to nobody comes to belong to this site, without its vendor's app and cloud.
//!
//! The lock tells its key first; that is kept, with the numbers that will make its administrator, before the lock is told
//! them. Whatever breaks off behind that, the kept draft tells at the next try whose the lock is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::tz::TimeZone;

use super::{
    keys::{KeyRing, KeysError, TtLockKeys},
    make::LockKeys,
    unreachable,
};
use crate::{
    config::{BleLockConfig, BleMake},
    drivers::ttlock::{
        message::Numbers,
        session::{Came, Conversation, Keys, Manners, Note, SERVICE, Task},
    },
    model::{Refusal, SystemName, Whom},
    seams::{Clock, Random},
    transport::ble::{Link, Radio, Wanted, run},
};

/// Why a lock was not paired, for a person.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Nothing changed at the lock.
    #[error("the lock was not paired: {}", .0.message)]
    NotPaired(Refusal),
    /// It may be paired.
    #[error(
        "the lock may be paired: {}; its keys are kept, and the same command once more finds out and goes on",
        .0.message
    )]
    Doubt(Refusal),
    /// The keys cannot be kept, or the kept ones cannot be read. Nothing changed at the lock.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Its keys are there already.
    #[error("lock {lock} has keys here already, in {}: add --replace if it was set back to its factory state", .path.display())]
    Known {
        /// Which lock.
        lock: String,
        /// Where they are.
        path: PathBuf,
    },
    /// What was kept cannot be put into its place.
    #[error("the lock is paired, and its keys cannot be put into {}: the same command once more goes on", .path.display())]
    Place {
        /// Where they should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A lock that belongs to this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// Where its keys are kept, sealed.
    pub path: PathBuf,
    /// Of its battery, in per cent, if it said so.
    pub battery: Option<u8>,
    /// It belonged to this site already, by a try that broke off.
    pub went_on: bool,
}

/// What it takes to pair a lock.
pub struct Pairer<'a> {
    /// Where its keys will be kept.
    pub ring: &'a KeyRing,
    /// The radio.
    pub radio: &'a Radio,
    /// The time.
    pub clock: &'a Clock,
    /// Where its administrator's numbers are drawn from.
    pub random: &'a Random,
    /// The zone of the lock's local time.
    pub zone: TimeZone,
    /// How long it is listened for.
    pub listen: Duration,
    /// How long it may take for each answer.
    pub answer_timeout: Duration,
}

struct Told {
    came: Came,
    introduced: Option<TtLockKeys>,
    battery: Option<u8>,
}

impl Pairer<'_> {
    /// Pairs a TTLock that waits for it. With `replace`, also where keys of it are there; they stay until it is done.
    ///
    /// # Errors
    /// See [`PairError`].
    pub async fn pair(
        &self,
        system: &SystemName,
        lock: &BleLockConfig,
        whom: Whom,
        replace: bool,
    ) -> Result<Paired, PairError> {
        let path = self.ring.path(system, lock);
        let draft = draft_path(&path);
        if draft.exists() {
            let kept = self.ring.read_from(&draft, BleMake::TtLock, system, lock)?;
            let LockKeys::TtLock(keys) = kept else { unreachable!("the keys were read as a TTLock's") };
            let mut first = self.connect(lock, &whom).await?;
            let told = self.talk(&mut first, Task::Look, keys).await;
            match told.came {
                Came::Done => return self.finish(&draft, path, told.battery, true),
                // It does not know them: what broke off had not begun.
                Came::NotDone(_) => drop(first),
                Came::NothingSent(refusal) | Came::Doubt(refusal) => return Err(PairError::Doubt(refusal)),
            }
        } else if path.exists() && !replace {
            return Err(PairError::Known { lock: format!("{system}/{}", lock.name), path });
        }
        let link = &mut self.connect(lock, &whom).await?;
        let number = || u32::from_be_bytes(self.random.bytes());
        let of_nobody = Keys::of_nobody(Numbers { admin: number(), unlock: number() });
        let told = self.talk(link, Task::Introduce, of_nobody).await;
        let keys = match (told.came, told.introduced) {
            (Came::Done, Some(keys)) => keys,
            (Came::NotDone(refusal) | Came::NothingSent(refusal) | Came::Doubt(refusal), _) => {
                return Err(PairError::NotPaired(refusal));
            }
            (Came::Done, None) => unreachable!("an introduction ends well with a key"),
        };
        self.ring.keep(&draft, system, lock, &LockKeys::TtLock(keys.clone()))?;
        match self.talk(link, Task::Admit, keys.clone()).await.came {
            Came::Done => {}
            Came::NotDone(refusal) | Came::NothingSent(refusal) => {
                // They are nobody's keys.
                let _ = fs::remove_file(&draft);
                return Err(PairError::NotPaired(refusal));
            }
            Came::Doubt(refusal) => return Err(PairError::Doubt(refusal)),
        }
        // Only a log in proves it.
        let told = self.talk(link, Task::Look, keys).await;
        match told.came {
            Came::Done => self.finish(&draft, path, told.battery, false),
            Came::NotDone(refusal) | Came::NothingSent(refusal) | Came::Doubt(refusal) => {
                Err(PairError::Doubt(refusal))
            }
        }
    }

    fn finish(
        &self,
        draft: &Path,
        path: PathBuf,
        battery: Option<u8>,
        went_on: bool,
    ) -> Result<Paired, PairError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let placed = fs::rename(draft, &path).and_then(|()| fs::File::open(folder)?.sync_all());
        match placed {
            Ok(()) => Ok(Paired { path, battery, went_on }),
            Err(source) => Err(PairError::Place { path, source }),
        }
    }

    async fn connect(&self, lock: &BleLockConfig, whom: &Whom) -> Result<Link, PairError> {
        let wanted = Wanted { whom: whom.clone(), service: SERVICE };
        let link = self.radio.connect(wanted, self.listen).await;
        link.map_err(|why| PairError::NotPaired(unreachable(&lock.name, &why)))
    }

    async fn talk(&self, link: &mut Link, task: Task, keys: TtLockKeys) -> Told {
        let manners = Manners {
            answer_timeout: self.answer_timeout,
            now: self.clock.now(),
            zone: self.zone.clone(),
            keys: keys.clone(),
            features: None,
        };
        let (mut introduced, mut battery) = (None, None);
        let note = |note| match note {
            Note::Introduced { header, key } => introduced = Some(Keys { header, key, ..keys.clone() }),
            Note::Battery(per_cent) => battery = Some(per_cent),
            _ => {}
        };
        let came = run(link, &mut Conversation::new(task, manners), note).await;
        Told { came, introduced, battery }
    }
}

fn draft_path(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".pairing");
    draft.into()
}
