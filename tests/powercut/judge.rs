//! What must be found after a power cut, from what was acknowledged before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use latchd::{protocol::Position, seams::Random};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{Disk, Image},
    trace::{self, Event, NOTES},
};

/// A line of the notes that the worked process takes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Note {
    /// From now on these jobs may stand there as well.
    Tried(Vec<(String, String)>),
    /// The other end may have said that it holds these reports.
    Delivered(Vec<String>),
    /// An answer came.
    Told(Told),
}

/// What an answer means.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// These jobs stand there.
    pub(crate) jobs: Vec<(String, String)>,
    /// Orders were taken, or acknowledged, up to here.
    pub(crate) orders: Position,
    /// Reports were numbered, or held, up to here.
    pub(crate) reports: Position,
    /// These reports are in the outbox until they are delivered.
    pub(crate) outbox: Vec<String>,
}

/// What was found on a disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) jobs: BTreeMap<String, String>,
    pub(crate) orders: Position,
    pub(crate) reports: Position,
    pub(crate) outbox: BTreeSet<String>,
}

/// A job that is not there.
pub(crate) const ABSENT: &str = "absent";

/// Takes notes; each is one write.
pub(crate) struct Notes(File);

impl Notes {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self(File::options().create(true).append(true).open(folder.join(NOTES)).unwrap())
    }

    pub(crate) fn take(&mut self, note: &Note) {
        let mut line = serde_json::to_vec(note).unwrap();
        line.push(b'\n');
        self.0.write_all(&line).unwrap();
    }

    pub(crate) fn tried(&mut self, jobs: impl IntoIterator<Item = (String, &'static str)>) {
        let jobs = jobs.into_iter().map(|(job, state)| (job, state.to_owned())).collect();
        self.take(&Note::Tried(jobs));
    }
}

/// What is known from the notes up to now.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    /// Where each job may stand; the first is what was acknowledged.
    jobs: BTreeMap<String, Vec<String>>,
    orders: Position,
    reports: Position,
    outbox: BTreeSet<String>,
}

impl Known {
    fn note(&mut self, note: Note) -> bool {
        match note {
            Note::Tried(jobs) => {
                for (job, state) in jobs {
                    self.jobs.entry(job).or_insert_with(|| vec![ABSENT.to_owned()]).push(state);
                }
                false
            }
            Note::Delivered(reports) => {
                for report in reports {
                    self.outbox.remove(&report);
                }
                false
            }
            Note::Told(told) => {
                for (job, state) in told.jobs {
                    self.jobs.insert(job, vec![state]);
                }
                self.orders = self.orders.max(told.orders);
                self.reports = self.reports.max(told.reports);
                self.outbox.extend(told.outbox);
                true
            }
        }
    }

    /// What is missing or too much.
    pub(crate) fn wrongs(&self, found: &Found) -> Vec<String> {
        let mut wrongs = Vec::new();
        for (job, may) in &self.jobs {
            let state = found.jobs.get(job).map_or(ABSENT, String::as_str);
            if !may.iter().any(|may| may == state) {
                wrongs.push(format!("job {job} is {state}, not one of {may:?}"));
            }
        }
        let unheard = found.jobs.keys().filter(|job| !self.jobs.contains_key(*job));
        wrongs.extend(unheard.map(|job| format!("nobody ever ordered job {job}")));
        if found.orders < self.orders {
            wrongs.push(format!("orders stand at {:?}, not at {:?}", found.orders, self.orders));
        }
        if found.reports < self.reports {
            wrongs.push(format!("reports stand at {:?}, not at {:?}", found.reports, self.reports));
        }
        let lost = self.outbox.difference(&found.outbox);
        wrongs.extend(lost.map(|report| format!("report {report} is not in the outbox")));
        wrongs
    }
}

/// What came of a replay.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Answers that were given.
    pub(crate) acknowledged: usize,
    /// Disks that were looked at, and how many of these were torn ones.
    pub(crate) images: usize,
    pub(crate) torn: usize,
    /// What was wrong: the first lines of it, and at how many disks.
    pub(crate) wrongs: Vec<String>,
    pub(crate) bad: usize,
    /// Disks with all that had been synced and nothing else; and at how many of them something was wrong.
    pub(crate) worst: usize,
    pub(crate) lost: usize,
}

/// How often the power goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cuts {
    /// At each so many-th acknowledgement.
    pub(crate) answers: usize,
    /// Torn disks at each of these at which something could tear.
    pub(crate) at_answers: u32,
    /// Torn disks at each sync that begins.
    pub(crate) at_syncs: u32,
}

/// Cuts the power at every acknowledgement of a trace and while it syncs, and looks at what is left. `look` says what
/// is wrong with a disk, by what is known at that moment.
pub(crate) fn replay<K: Knows>(
    name: &str,
    folder: &Path,
    seed: u64,
    cuts: Cuts,
    look: fn(&Path, &K) -> Vec<String>,
) -> Replay {
    let root = folder.join("disk");
    let mut disk = Disk::new(&root);
    let mut known = Arc::new(K::default());
    let random = Random::seeded(seed);
    let bench = Bench::start(name, seed, look);
    let mut replay = Replay::default();
    for event in trace::events(&folder.join("trace"), &root) {
        let torn = match event {
            Event::Note(text) => {
                let mut answers = false;
                for line in text.lines() {
                    answers |= Arc::make_mut(&mut known).note(line);
                }
                if !answers {
                    continue;
                }
                replay.acknowledged += 1;
                if !replay.acknowledged.is_multiple_of(cuts.answers) {
                    continue;
                }
                bench.put(Task { image: disk.worst(), known: known.clone(), what: What::Worst });
                cuts.at_answers
            }
            event => {
                let begins = matches!(event, Event::SyncBegan { .. });
                disk.happened(event);
                if begins { cuts.at_syncs } else { 0 }
            }
        };
        if disk.has_waiting() {
            for _ in 0..torn {
                bench.put(Task { image: disk.torn(&random), known: known.clone(), what: What::Torn });
            }
        }
    }
    bench.end(&mut replay);
    println!(
        "{name}: {} acknowledgements, {} disks looked at ({} of them torn), {} bad (seed {seed})",
        replay.acknowledged, replay.images, replay.torn, replay.bad
    );
    replay
}

/// What notes add up to.
pub(crate) trait Knows: Default + Clone + Send + Sync + 'static {
    /// Takes a line of the notes; says whether it is an answer that somebody was given.
    fn note(&mut self, line: &str) -> bool;
}

impl Knows for Known {
    fn note(&mut self, line: &str) -> bool {
        self.note(serde_json::from_str(line).unwrap())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Worst,
    Torn,
}

struct Task<K> {
    image: Image,
    known: Arc<K>,
    what: What,
}

/// Two threads that open disks.
struct Bench<K> {
    queue: Arc<(Mutex<Waiting<K>>, Condvar)>,
    threads: Vec<std::thread::JoinHandle<Replay>>,
}

struct Waiting<K> {
    tasks: Vec<Task<K>>,
    ended: bool,
}

/// Images that may wait to be looked at; each is as big as the database.
const WAITING: usize = 8;

impl<K: Knows> Bench<K> {
    fn start(name: &str, seed: u64, look: fn(&Path, &K) -> Vec<String>) -> Self {
        let queue = Arc::new((Mutex::new(Waiting { tasks: Vec::new(), ended: false }), Condvar::new()));
        let threads = (0..2).map(|number| {
            let (queue, name) = (queue.clone(), format!("powercut-{name}-{seed}-{number}"));
            std::thread::spawn(move || look_at_all(&queue, &name, look))
        });
        Self { threads: threads.collect(), queue }
    }

    fn put(&self, task: Task<K>) {
        let (queue, changed) = &*self.queue;
        let mut waiting = queue.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.tasks.len() >= WAITING {
            assert!(
                !self.threads.iter().any(std::thread::JoinHandle::is_finished),
                "a look at a disk panicked"
            );
            let (again, _) = changed.wait_timeout(waiting, std::time::Duration::from_secs(1)).unwrap();
            waiting = again;
        }
        waiting.tasks.push(task);
        changed.notify_all();
    }

    fn end(self, replay: &mut Replay) {
        let (queue, changed) = &*self.queue;
        queue.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        changed.notify_all();
        for thread in self.threads {
            let part = thread.join().unwrap();
            replay.images += part.images;
            replay.torn += part.torn;
            replay.bad += part.bad;
            replay.worst += part.worst;
            replay.lost += part.lost;
            replay.wrongs.extend(part.wrongs);
        }
    }
}

fn look_at_all<K>(
    queue: &(Mutex<Waiting<K>>, Condvar),
    name: &str,
    look: fn(&Path, &K) -> Vec<String>,
) -> Replay {
    let (queue, changed) = queue;
    let mut replay = Replay::default();
    loop {
        let task = {
            let mut waiting = queue.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(task) = waiting.tasks.pop() {
                    changed.notify_all();
                    break task;
                }
                if waiting.ended {
                    return replay;
                }
                waiting = changed.wait(waiting).unwrap();
            }
        };
        let folder = tempfile::tempdir_in(memory()).unwrap();
        task.image.put(folder.path());
        let wrongs = look(folder.path(), &task.known);
        replay.images += 1;
        replay.torn += usize::from(task.what == What::Torn);
        replay.worst += usize::from(task.what == What::Worst);
        if wrongs.is_empty() {
            continue;
        }
        replay.bad += 1;
        replay.lost += usize::from(task.what == What::Worst);
        if replay.wrongs.len() < 5 {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
                "{name}-{}-{}",
                std::process::id(),
                replay.bad
            ));
            let _ = fs::remove_dir_all(&kept);
            fs::create_dir_all(&kept).unwrap();
            task.image.put(&kept);
            replay.wrongs.push(format!("{}: {}", kept.display(), wrongs.join("; ")));
        }
    }
}

/// A folder in memory where there is one: what is synced there need not be.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
