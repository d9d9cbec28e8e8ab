//! A disk that may lose its power: what of its files and names is durable, and what only the processes can see.
//!
//! # What it takes for granted
//! A write is durable when a sync of its file, begun after it, has returned; before that, any part of it may be there
//! or not, in whole sectors, whatever was written before or after it. A name is durable when a sync of its folder,
//! begun after it was made or taken away, has returned: no sync of a file makes its name durable. Until then a folder's
//! changes may be there up to any one of them and in their order, as a journal keeps them. Nothing that was durable is
//! harmed, beside the sectors that are being written.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use latchd::seams::Random;

use crate::trace::{Event, Open};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// What may still be lost of a file.
#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    waiting: Vec<Change>,
    /// How many changes became durable so far.
    synced: usize,
}

/// A change of names that may still be lost.
#[derive(Debug, Clone)]
enum Naming {
    Put(PathBuf, Node),
    Take(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    files: Vec<Contents>,
    /// As the processes see them.
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// Each with its number, in their order.
    waiting: Vec<(u64, Naming)>,
    named: u64,
    positions: HashMap<Open, u64>,
    /// Where a thread's sync began: the changes before it will be durable.
    syncs: HashMap<u32, Began>,
}

#[derive(Debug)]
enum Began {
    File(usize, usize),
    /// The namings of that folder up to this number: another sync may end meanwhile, and new ones come.
    Folder(PathBuf, u64),
}

/// What a power cut leaves: files below the root, and folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Disk {
    /// An empty folder whose own name is durable.
    pub(crate) fn new(root: &Path) -> Self {
        let names = BTreeMap::from([(root.to_owned(), Node::Folder)]);
        Self {
            root: root.to_owned(),
            files: Vec::new(),
            durable: names.clone(),
            names,
            waiting: Vec::new(),
            named: 0,
            positions: HashMap::new(),
            syncs: HashMap::new(),
        }
    }

    pub(crate) fn happened(&mut self, event: Event) {
        match event {
            Event::Made { path, empties } => match self.names.get(&path) {
                Some(Node::File(file)) if empties => self.files[*file].waiting.push(Change::Resize(0)),
                Some(_) => {}
                None => {
                    let node = Node::File(self.files.len());
                    self.files.push(Contents::default());
                    self.name(Naming::Put(path, node));
                }
            },
            Event::Opened { file, appends } => {
                let at = if appends { self.size(&file.path) } else { 0 };
                self.positions.insert(file, at);
            }
            Event::Moved { file, to } => {
                self.positions.insert(file, to);
            }
            Event::Wrote { file, at, bytes } => {
                let at = at.unwrap_or_else(|| {
                    let position = self.positions.entry(file.clone()).or_default();
                    let at = *position;
                    *position += bytes.len() as u64;
                    at
                });
                let at = usize::try_from(at).unwrap();
                self.file(&file.path).waiting.push(Change::Write { at, bytes });
            }
            Event::Resized { path, to } => {
                self.file(&path).waiting.push(Change::Resize(usize::try_from(to).unwrap()));
            }
            Event::SyncBegan { thread, path } => {
                let began = match self.names.get(&path) {
                    Some(Node::File(file)) => {
                        let contents = &self.files[*file];
                        Began::File(*file, contents.synced + contents.waiting.len())
                    }
                    Some(Node::Folder) => Began::Folder(path, self.named),
                    None => panic!("a sync of {path:?}, which is not there"),
                };
                self.syncs.insert(thread, began);
            }
            Event::SyncEnded { thread } => match self.syncs.remove(&thread).unwrap() {
                Began::File(file, up_to) => self.files[file].sync(up_to),
                Began::Folder(folder, up_to) => {
                    let durable = &mut self.durable;
                    self.waiting.retain(|(number, naming)| {
                        let now = *number <= up_to && naming.is_in(&folder);
                        if now {
                            naming.apply(durable);
                        }
                        !now
                    });
                }
            },
            Event::Unlinked(path) => self.name(Naming::Take(path)),
            Event::Renamed { from, to } => self.name(Naming::Rename(from, to)),
            Event::Linked { from, to } => {
                let node = self.names[&from];
                self.name(Naming::Put(to, node));
            }
            Event::Folder(path) => self.name(Naming::Put(path, Node::Folder)),
            Event::Note(_) => {}
        }
    }

    /// What is left when the power goes now and nothing is there that was not synced.
    pub(crate) fn worst(&self) -> Image {
        self.left(&self.durable, |contents| contents.durable.clone())
    }

    /// The same where each thing that was not synced may be there, whole or in parts.
    pub(crate) fn torn(&self, random: &Random) -> Image {
        let mut names = self.durable.clone();
        let kept = usize::try_from(random.below(self.waiting.len() as u64 + 1)).unwrap();
        for (_, naming) in &self.waiting[..kept] {
            naming.apply(&mut names);
        }
        // Few, half or most of it.
        let chance = [1, 5, 9][usize::try_from(random.below(3)).unwrap()];
        self.left(&names, |contents| {
            let mut bytes = contents.durable.clone();
            for change in &contents.waiting {
                if random.below(10) >= chance {
                    continue;
                }
                match change {
                    Change::Write { at, bytes: written } if random.below(3) == 0 => {
                        let sector = if random.below(2) == 0 { 512 } else { 4096 };
                        tear(&mut bytes, *at, written, sector, random);
                    }
                    change => change.apply(&mut bytes),
                }
            }
            bytes
        })
    }

    /// Whether anything could be lost now, of files or names that matter to a start after a cut.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.files.iter().any(|contents| !contents.waiting.is_empty())
    }

    fn left(&self, names: &BTreeMap<PathBuf, Node>, contents: impl Fn(&Contents) -> Vec<u8>) -> Image {
        let mut files = BTreeMap::new();
        for (path, node) in names {
            let is_reached = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root));
            let is_reached = is_reached.into_iter().all(|folder| names.get(folder) == Some(&Node::Folder));
            if path == &self.root || !is_reached {
                continue;
            }
            let below = path.strip_prefix(&self.root).unwrap().to_owned();
            files.insert(
                below,
                match node {
                    Node::Folder => None,
                    Node::File(file) => Some(contents(&self.files[*file])),
                },
            );
        }
        Image(files)
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.named += 1;
        self.waiting.push((self.named, naming));
    }

    fn file(&mut self, path: &Path) -> &mut Contents {
        match self.names.get(path) {
            Some(Node::File(file)) => &mut self.files[*file],
            other => panic!("a change of {path:?}, which is {other:?}"),
        }
    }

    fn size(&mut self, path: &Path) -> u64 {
        let contents = self.file(path);
        let mut size = contents.durable.len();
        for change in &contents.waiting {
            size = match change {
                Change::Write { at, bytes } => size.max(at + bytes.len()),
                Change::Resize(to) => *to,
            };
        }
        size as u64
    }
}

impl Contents {
    fn sync(&mut self, up_to: usize) {
        let count = up_to.saturating_sub(self.synced);
        for change in self.waiting.drain(..count) {
            change.apply(&mut self.durable);
        }
        self.synced += count;
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => write(contents, *at, bytes),
            Self::Resize(to) => contents.resize(*to, 0),
        }
    }
}

fn write(contents: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[at..end].copy_from_slice(bytes);
}

/// Writes some of the sectors that a write touches. The file has its new length: its size is not in its sectors.
fn tear(contents: &mut Vec<u8>, at: usize, bytes: &[u8], sector: usize, random: &Random) {
    let end = at + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    let mut from = at;
    while from < end {
        let to = ((from / sector + 1) * sector).min(end);
        if random.below(2) == 0 {
            write(contents, from, &bytes[from - at..to - at]);
        }
        from = to;
    }
}

impl Naming {
    fn is_in(&self, folder: &Path) -> bool {
        let (Self::Put(path, _) | Self::Take(path) | Self::Rename(path, _)) = self;
        path.parent() == Some(folder)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Take(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl Image {
    /// Writes the image into an empty folder.
    pub(crate) fn put(&self, folder: &Path) {
        for (path, contents) in &self.0 {
            let path = folder.join(path);
            match contents {
                None => fs::create_dir(&path).unwrap(),
                Some(bytes) => {
                    use std::os::unix::fs::OpenOptionsExt;
                    let mut options = fs::File::options();
                    let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
                    std::io::Write::write_all(&mut file, bytes).unwrap();
                }
            }
        }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new("/d").join(name)
    }

    fn made(name: &str) -> Event {
        Event::Made { path: path(name), empties: false }
    }

    fn wrote(name: &str, at: u64, bytes: &[u8]) -> Event {
        let file = Open { number: 3, path: path(name) };
        Event::Wrote { file, at: Some(at), bytes: bytes.to_vec() }
    }

    fn synced(name: &str) -> [Event; 2] {
        [Event::SyncBegan { thread: 1, path: path(name) }, Event::SyncEnded { thread: 1 }]
    }

    fn disk(events: impl IntoIterator<Item = Event>) -> Disk {
        let mut disk = Disk::new(Path::new("/d"));
        events.into_iter().for_each(|event| disk.happened(event));
        disk
    }

    fn left(image: &Image) -> Vec<(&str, &[u8])> {
        let files = image.0.iter().filter_map(|(path, bytes)| Some((path.to_str()?, bytes.as_deref()?)));
        files.collect()
    }

    #[test]
    fn a_file_is_durable_when_it_and_its_folder_were_synced() {
        let mut disk = disk([made("a"), wrote("a", 0, b"one")]);
        synced("a").into_iter().for_each(|event| disk.happened(event));
        assert!(left(&disk.worst()).is_empty(), "nobody synced its name");
        synced("").into_iter().for_each(|event| disk.happened(event));
        disk.happened(wrote("a", 1, b"XX"));
        assert_eq!(left(&disk.worst()), [("a", &b"one"[..])]);
        synced("a").into_iter().for_each(|event| disk.happened(event));
        assert_eq!(left(&disk.worst()), [("a", &b"oXX"[..])]);
        assert!(!disk.has_waiting());
    }

    #[test]
    fn what_was_written_after_a_sync_began_is_not_made_durable_by_it() {
        let mut disk = disk([made("a")]);
        synced("").into_iter().for_each(|event| disk.happened(event));
        let [began, ended] = synced("a");
        for event in [wrote("a", 0, b"one"), began, wrote("a", 3, b"two"), ended] {
            disk.happened(event);
        }
        assert_eq!(left(&disk.worst()), [("a", &b"one"[..])]);
    }

    #[test]
    fn a_name_that_was_made_after_a_folders_sync_began_is_not_made_durable_by_it_whatever_else_is_synced() {
        let sync_of = |thread| Event::SyncBegan { thread, path: path("") };
        let events = [made("a"), sync_of(1), sync_of(2), Event::SyncEnded { thread: 2 }, made("b")];
        let mut disk = disk(events);
        disk.happened(Event::SyncEnded { thread: 1 });
        assert!(disk.worst().has("a") && !disk.worst().has("b"));
    }

    #[test]
    fn an_unlinked_file_comes_back_until_its_folder_was_synced() {
        let mut disk = disk([made("a")]);
        synced("").into_iter().for_each(|event| disk.happened(event));
        disk.happened(Event::Unlinked(path("a")));
        assert!(disk.worst().has("a"));
        let some: Vec<_> = (0..20).map(|seed| disk.torn(&Random::seeded(seed)).has("a")).collect();
        assert!(some.contains(&true) && some.contains(&false));
        synced("").into_iter().for_each(|event| disk.happened(event));
        assert!(!disk.worst().has("a"));
    }

    #[test]
    fn unsynced_writes_are_there_or_not_or_in_whole_sectors() {
        let mut disk = disk([made("a")]);
        synced("").into_iter().for_each(|event| disk.happened(event));
        disk.happened(wrote("a", 0, &[1; 8192]));
        let mut seen = [false; 3];
        for seed in 0..100 {
            let image = disk.torn(&Random::seeded(seed));
            let [(_, bytes)] = left(&image)[..] else { panic!("{image:?}") };
            for sector in bytes.chunks(512) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
            let ones = bytes.iter().filter(|byte| **byte == 1).count();
            seen[match ones {
                0 => 0,
                8192 => 1,
                _ => 2,
            }] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
