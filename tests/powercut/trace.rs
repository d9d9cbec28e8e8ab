//! What processes did to the files below a folder, as `strace` saw it.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The file that a traced process writes its notes to, one write each.
pub(crate) const NOTES: &str = "notes";

/// Everything that changes a file, a name, or what is durable of them. Files are mapped for reading only, but for
/// SQLite's `-shm`, which is never durable.
const CALLS: &str = "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,lseek,fsync,fdatasync,ftruncate,\
                     fallocate,unlink,unlinkat,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,sync_file_range";

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A file was opened that was to be made if it was not there; `empties` it if it was.
    Made { path: PathBuf, empties: bool },
    /// A descriptor begins at the start, or at the end.
    Opened { file: Open, appends: bool },
    /// A descriptor moved.
    Moved { file: Open, to: u64 },
    /// Bytes were written: at an offset, or where the descriptor stands.
    Wrote { file: Open, at: Option<u64>, bytes: Vec<u8> },
    /// A file was cut or stretched.
    Resized { path: PathBuf, to: u64 },
    /// A sync of a file or folder began, by this thread.
    SyncBegan { thread: u32, path: PathBuf },
    /// It returned: what was written before it began is durable.
    SyncEnded { thread: u32 },
    /// A name is gone.
    Unlinked(PathBuf),
    /// A name became another.
    Renamed { from: PathBuf, to: PathBuf },
    /// A file has one more name.
    Linked { from: PathBuf, to: PathBuf },
    /// A folder is there.
    Folder(PathBuf),
    /// What a process said of itself.
    Note(String),
}

/// A descriptor that has a file open. Two processes never have one file open under one number here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Open {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
}

/// Runs a program under `strace` and gives its trace; none where `strace` cannot be used.
pub(crate) fn traced(command: &mut Command, trace: &Path) -> Option<()> {
    let quick = strace(&["--seccomp-bpf", "-o", "/dev/null", "true"]);
    let works = quick || strace(&["-o", "/dev/null", "true"]);
    if !works {
        assert!(std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: strace");
        println!("missing: strace");
        return None;
    }
    let mut traced = Command::new("strace");
    traced.args(quick.then_some("--seccomp-bpf"));
    traced.args([
        "-f",
        "-y",
        "-xx",
        "-s",
        "33554432",
        "-e",
        "signal=none",
        "-e",
        &format!("trace={CALLS}"),
        "-o",
    ]);
    traced.arg(trace).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    let output = traced.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Some(())
}

fn strace(arguments: &[&str]) -> bool {
    let output = Command::new("strace").arg("-f").args(["-e", "trace=openat"]).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Reads a trace: what happened below `root`, in the order of its ends.
pub(crate) fn events(trace: &Path, root: &Path) -> impl Iterator<Item = Event> {
    let mut lines = BufReader::new(File::open(trace).unwrap()).lines();
    let root = root.to_owned();
    let mut begun = HashMap::new();
    let mut ready = std::collections::VecDeque::new();
    std::iter::from_fn(move || {
        loop {
            if let Some(event) = ready.pop_front() {
                return Some(event);
            }
            let line = lines.next()?.unwrap();
            ready.extend(line_events(&line, &root, &mut begun));
        }
    })
}

fn line_events(line: &str, root: &Path, begun: &mut HashMap<u32, String>) -> Vec<Event> {
    let (thread, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no thread in {line:.200}"));
    let thread: u32 = thread.parse().unwrap();
    let rest = rest.trim_start();
    if rest.starts_with("+++") || rest.starts_with("---") {
        return Vec::new();
    }
    if let Some(beginning) = rest.strip_suffix("<unfinished ...>") {
        begun.insert(thread, beginning.to_owned());
        let (name, arguments) = beginning.split_once('(').unwrap();
        return sync_of(name, arguments, root)
            .map(|path| Event::SyncBegan { thread, path })
            .into_iter()
            .collect();
    }
    let (whole, resumed) = match rest.strip_prefix("<... ") {
        Some(end) => {
            let (_, end) = end.split_once("resumed>").unwrap();
            let Some(mut whole) = begun.remove(&thread) else { return Vec::new() };
            whole.push_str(end);
            (whole, true)
        }
        None => (rest.to_owned(), false),
    };
    let Some((call, result)) = whole.rsplit_once(" = ") else { return Vec::new() };
    let digits: String = result.chars().take_while(char::is_ascii_digit).collect();
    // `-1 ENOENT (…)` changed nothing; `?` never returned.
    let Ok(result) = digits.parse::<u64>() else { return Vec::new() };
    let (name, arguments) = call.split_once('(').unwrap_or_else(|| panic!("no call in {line:.200}"));
    let arguments =
        arguments.trim_end().strip_suffix(')').unwrap_or_else(|| panic!("{line:.200}")).trim_end();
    if let Some(path) = sync_of(name, arguments, root) {
        let ended = Event::SyncEnded { thread };
        return if resumed { vec![ended] } else { vec![Event::SyncBegan { thread, path }, ended] };
    }
    call_events(name, arguments, result, root)
}

/// The file that a call syncs, if it is one of ours.
fn sync_of(name: &str, arguments: &str, root: &Path) -> Option<PathBuf> {
    matches!(name, "fsync" | "fdatasync").then(|| descriptor(arguments, root)).flatten().map(|open| open.path)
}

fn call_events(name: &str, arguments: &str, result: u64, root: &Path) -> Vec<Event> {
    let ours = |path: PathBuf| (path.starts_with(root) && !is_beside(&path)).then_some(path);
    match name {
        "openat" | "open" | "creat" => {
            let Some(path) = paths(arguments).into_iter().next().and_then(ours) else { return Vec::new() };
            let flags = arguments.rsplit_once("\", ").map_or("O_CREAT|O_TRUNC", |(_, flags)| flags);
            if flags.contains("O_DIRECTORY") {
                return Vec::new();
            }
            let (made, empties) = (flags.contains("O_CREAT"), flags.contains("O_TRUNC"));
            let number = u32::try_from(result).unwrap();
            let file = Open { number, path: path.clone() };
            let made = (made || empties).then_some(Event::Made { path, empties });
            made.into_iter().chain([Event::Opened { file, appends: flags.contains("O_APPEND") }]).collect()
        }
        "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
            let Some(file) = descriptor(arguments, root) else { return Vec::new() };
            let mut bytes = strings(arguments).concat();
            bytes.truncate(usize::try_from(result).unwrap());
            if file.path.file_name().is_some_and(|name| name == NOTES) {
                return vec![Event::Note(String::from_utf8(bytes).unwrap())];
            }
            if is_beside(&file.path) {
                return Vec::new();
            }
            let mut numbers = arguments.rsplit(", ").map(str::parse::<u64>);
            let at = match name {
                "pwrite64" | "pwritev" => numbers.next(),
                "pwritev2" => numbers.nth(1),
                _ => None,
            };
            let at = at.map(|at| at.unwrap_or_else(|_| panic!("no place in {name}({arguments:.200}")));
            vec![Event::Wrote { file, at, bytes }]
        }
        "lseek" => {
            let file = descriptor(arguments, root).filter(|file| !is_beside(&file.path));
            file.map(|file| Event::Moved { file, to: result }).into_iter().collect()
        }
        "ftruncate" => {
            let Some(file) = descriptor(arguments, root).filter(|file| !is_beside(&file.path)) else {
                return Vec::new();
            };
            let to = arguments.rsplit_once(", ").unwrap().1.parse().unwrap();
            vec![Event::Resized { path: file.path, to }]
        }
        "fallocate" => {
            let Some(file) = descriptor(arguments, root).filter(|file| !is_beside(&file.path)) else {
                return Vec::new();
            };
            // The reserve alone is made so: all of it, at once.
            let mut numbers = arguments.rsplit(", ").map(|number| number.parse::<u64>().unwrap_or(0));
            let to = numbers.next().unwrap() + numbers.next().unwrap();
            vec![Event::Resized { path: file.path, to }]
        }
        "sync_file_range" => {
            let file = descriptor(arguments, root);
            assert!(file.is_none(), "{name} of {file:?} is not understood here");
            Vec::new()
        }
        "unlink" | "unlinkat" => paths(arguments).into_iter().filter_map(ours).map(Event::Unlinked).collect(),
        "mkdir" | "mkdirat" => paths(arguments).into_iter().filter_map(ours).map(Event::Folder).collect(),
        "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
            let mut both = paths(arguments).into_iter();
            let (Some(from), Some(to)) = (both.next(), both.next()) else { panic!("{name}({arguments})") };
            match (ours(from), ours(to)) {
                (Some(from), Some(to)) if name.starts_with("link") => vec![Event::Linked { from, to }],
                (Some(from), Some(to)) => vec![Event::Renamed { from, to }],
                (None, None) => Vec::new(),
                one => {
                    panic!("{name} over the edge of {}: {one:?}, of {:?}", root.display(), paths(arguments))
                }
            }
        }
        // Of a file elsewhere, or of one whose name is gone: nothing of it is there after a cut.
        "fsync" | "fdatasync" => Vec::new(),
        other => panic!("{other} was not asked for"),
    }
}

/// What is not on the disk in question: the notes, and what SQLite makes anew at each start.
fn is_beside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == NOTES) || path.to_string_lossy().ends_with("-shm")
}

/// The first argument, a descriptor with its file: `4<\x2f…>`; none where it is not one of ours, or has no name any
/// more.
fn descriptor(arguments: &str, root: &Path) -> Option<Open> {
    let (number, rest) = arguments.split_once('<')?;
    let (path, rest) = rest.split_once('>')?;
    if rest.starts_with("(deleted)") {
        return None;
    }
    let path = path_of(&unhex(path));
    path.starts_with(root).then(|| Open { number: number.parse().unwrap(), path })
}

/// The paths among the arguments; a relative one stands behind the folder it begins in.
fn paths(arguments: &str) -> Vec<PathBuf> {
    let folders = arguments.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
    let mut folders = folders.map(|(path, _)| path_of(&unhex(path)));
    strings(arguments)
        .into_iter()
        .map(|bytes| match folders.next() {
            Some(folder) => folder.join(path_of(&bytes)),
            None => path_of(&bytes),
        })
        .collect()
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// The quoted strings among the arguments.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let quoted: Vec<_> = arguments.split('"').collect();
    assert!(quoted.iter().skip(2).step_by(2).all(|rest| !rest.starts_with("...")), "strace cut a string");
    quoted.into_iter().skip(1).step_by(2).map(unhex).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => c - b'0',
        b'a'..=b'f' => c - b'a' + 10,
        _ => panic!("{text:.80} is not hexadecimal"),
    };
    let bytes = text.as_bytes();
    assert!(bytes.len().is_multiple_of(4), "{text:.80}");
    bytes
        .chunks_exact(4)
        .map(|byte| {
            assert!(byte.starts_with(b"\\x"), "{text:.80}");
            digit(byte[2]) * 16 + digit(byte[3])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Vec<String> {
        let mut begun = HashMap::new();
        let events = lines.iter().flat_map(|line| line_events(line, Path::new("/d"), &mut begun));
        events.map(|event| format!("{event:?}")).collect()
    }

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn a_write_has_its_file_its_place_and_as_many_bytes_as_were_taken() {
        let line = format!("7 pwrite64(3<{}>, \"{}\", 4, 512) = 2", hex("/d/a b"), hex("\"(, "));
        assert_eq!(
            told(&[&line]),
            [r#"Wrote { file: Open { number: 3, path: "/d/a b" }, at: Some(512), bytes: [34, 40] }"#]
        );
        let elsewhere = format!("7 pwrite64(3<{}>, \"\\x00\", 1, 0) = 1", hex("/e/a"));
        let nameless = format!("7 pwrite64(3<{}>(deleted), \"\\x00\", 1, 0) = 1", hex("/d/a"));
        let refused =
            format!("7 pwrite64(3<{}>, \"\\x00\", 1, 0) = -1 EIO (Input/output error)", hex("/d/a"));
        assert!(told(&[&elsewhere, &nameless, &refused]).is_empty());
    }

    #[test]
    fn a_sync_that_others_work_beside_begins_and_ends_where_it_did() {
        let file = hex("/d/f");
        let lines = [
            format!("7 fdatasync(3<{file}> <unfinished ...>"),
            format!("8 pwrite64(4<{file}>, \"\\x61\", 1, 24 <unfinished ...>"),
            "8 <... pwrite64 resumed>) = 1".to_owned(),
            "7 <... fdatasync resumed>)             = 0".to_owned(),
        ];
        let told = told(&lines.each_ref().map(String::as_str));
        assert_eq!(told[0], r#"SyncBegan { thread: 7, path: "/d/f" }"#);
        assert!(told[1].starts_with("Wrote") && told[1].contains("at: Some(24)"), "{told:?}");
        assert_eq!(told[2], "SyncEnded { thread: 7 }");
    }

    #[test]
    fn a_sync_elsewhere_or_of_a_file_whose_name_is_gone_makes_nothing_durable() {
        let elsewhere = format!("7 fdatasync(3<{}>) = 0", hex("/e/f"));
        let nameless = format!("7 fsync(3<{}>(deleted)) = 0", hex("/d/f"));
        let begun = format!("7 fdatasync(3<{}>(deleted) <unfinished ...>", hex("/d/f"));
        let lines = [&*elsewhere, &nameless, &begun, "7 <... fdatasync resumed>) = 0"];
        assert!(told(&lines).is_empty());
    }

    #[test]
    fn names_come_and_go_also_by_relative_paths() {
        let lines = [
            format!("7 openat(AT_FDCWD<{}>, \"{}\", O_RDWR|O_CREAT, 0600) = 3<>", hex("/d"), hex("f")),
            format!("7 rename(\"{}\", \"{}\") = 0", hex("/d/f"), hex("/d/g")),
            format!("7 unlink(\"{}\") = 0", hex("/d/g")),
        ];
        assert_eq!(
            told(&lines.each_ref().map(String::as_str)),
            [
                r#"Made { path: "/d/f", empties: false }"#,
                r#"Opened { file: Open { number: 3, path: "/d/f" }, appends: false }"#,
                r#"Renamed { from: "/d/f", to: "/d/g" }"#,
                r#"Unlinked("/d/g")"#,
            ]
        );
    }
}
