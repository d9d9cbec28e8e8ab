//! A VFS that gathers the writes to a database's log, so that a commit is one write and one sync.
//!
//! SQLite writes each frame of its log in two pieces, the head and the page. On a quick disk these system calls cost
//! more than everything else in a small commit. Pieces that follow on each other are kept here and go down together,
//! at the latest before the sync that makes the commit durable, before anything looks at the file, and before the
//! log's index says that they are there. Nothing is ever acknowledged earlier than without this layer: what a process
//! that is killed had gathered was not committed.

use std::ffi::c_int;

use rusqlite::ffi::{SQLITE_OK, SQLITE_OPEN_WAL};

use super::{
    VfsError,
    shim::{self, Below, Passing},
};

/// The most that is kept: a commit of some fifteen pages.
const MOST: usize = 64 << 10;

/// The name of a VFS that gathers over another one, by its name, or over SQLite's own.
///
/// # Errors
/// When there is no VFS of that name, or SQLite refuses.
pub fn gathering(over: Option<&str>) -> Result<String, VfsError> {
    let name = match over {
        None => "latchd".to_owned(),
        Some(over) => format!("latchd over {over}"),
    };
    match shim::register::<Gathered>(&name, over, ()) {
        Ok(()) | Err(VfsError::Taken) => Ok(name),
        Err(refused) => Err(refused),
    }
}

/// An open file, with what was written to it and has not gone down.
struct Gathered {
    is_log: bool,
    bytes: Vec<u8>,
    /// Where they belong.
    offset: i64,
}

impl Gathered {
    fn end(&self) -> i64 {
        // No more than `MOST`.
        self.offset.saturating_add(self.bytes.len() as i64)
    }
}

impl Passing for Gathered {
    type Shared = ();
    const MINDS_THE_INDEX: bool = true;

    fn opened((): &(), _name: &str, flags: c_int) -> Self {
        Self { is_log: flags & SQLITE_OPEN_WAL != 0, bytes: Vec::new(), offset: 0 }
    }

    fn write(&mut self, below: Below, bytes: &[u8], offset: i64) -> c_int {
        if !self.is_log {
            return below.write(bytes, offset);
        }
        if offset != self.end() || MOST < self.bytes.len() + bytes.len() {
            let settled = self.settle(below);
            if settled != SQLITE_OK {
                return settled;
            }
            if MOST < bytes.len() {
                return below.write(bytes, offset);
            }
            self.offset = offset;
        }
        self.bytes.extend_from_slice(bytes);
        SQLITE_OK
    }

    fn sync(&mut self, below: Below, flags: c_int) -> c_int {
        match self.settle(below) {
            SQLITE_OK => below.sync(flags),
            refused => refused,
        }
    }

    /// Writes what was gathered. What cannot be written is given up: whoever wrote it hears so, and rolls back.
    fn settle(&mut self, below: Below) -> c_int {
        if self.bytes.is_empty() {
            return SQLITE_OK;
        }
        let written = below.write(&self.bytes, self.offset);
        self.bytes.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, OpenFlags};

    use super::super::{CountingVfs, Counts, Fault};

    /// A database through the layer, over files that are counted.
    struct Site {
        counts: Counts,
        writer: Connection,
        /// A connection that knows nothing of the layer.
        reader: Connection,
        _folder: tempfile::TempDir,
    }

    fn site(name: &str, synchronous: &str) -> Site {
        let counts = CountingVfs::register(name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let vfs = super::gathering(Some(name)).unwrap();
        assert_eq!(super::gathering(Some(name)).unwrap(), vfs, "a second one is the first");
        let writer = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), vfs.as_str()).unwrap();
        let settings =
            "PRAGMA journal_mode=WAL; PRAGMA cache_size=5; CREATE TABLE a(n INTEGER PRIMARY KEY, x)";
        writer.execute_batch(&format!("PRAGMA synchronous={synchronous}; {settings}")).unwrap();
        let reader = Connection::open(&path).unwrap();
        Site { counts, writer, reader, _folder: folder }
    }

    /// How many rows there are, and the sum of what they say.
    fn seen(connection: &Connection) -> (i64, i64) {
        let sums = "SELECT count(*), coalesce(sum(n * length(x)), 0) FROM a";
        connection.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    fn fill(connection: &Connection, from: i64, rows: i64) {
        for n in from..from + rows {
            connection.execute("INSERT INTO a VALUES (?1, zeroblob(?2))", [n, 900 + n % 7]).unwrap();
        }
    }

    #[test]
    fn a_commit_is_one_write_and_one_sync_of_the_log() {
        let Site { counts, writer, _folder, .. } = site("one write", "FULL");
        fill(&writer, 0, 1);
        let before = (counts.writes("t.db-wal"), counts.syncs("t.db-wal"));
        writer.execute_batch("BEGIN").unwrap();
        fill(&writer, 1, 12);
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!((counts.writes("t.db-wal"), counts.syncs("t.db-wal")), (before.0 + 1, before.1 + 1));
    }

    #[test]
    fn whoever_reads_sees_a_commit_at_once_whether_it_was_synced_or_not() {
        for synchronous in ["FULL", "NORMAL", "OFF"] {
            let Site { counts, writer, reader, _folder } = site(synchronous, synchronous);
            for n in 0..300 {
                fill(&writer, n, 1);
                assert_eq!(seen(&reader), seen(&writer), "{synchronous}, after {n}");
            }
            assert_eq!(counts.syncs("t.db-wal") > 100, synchronous == "FULL");
        }
    }

    #[test]
    fn a_long_transaction_reads_what_it_wrote_itself_and_leaves_nothing_when_it_is_undone() {
        let Site { writer, reader, _folder, .. } = site("long", "FULL");
        fill(&writer, 0, 10);
        let before = seen(&writer);
        for end in ["ROLLBACK", "COMMIT"] {
            writer.execute_batch("BEGIN").unwrap();
            // Far more than SQLite's cache and this layer hold.
            fill(&writer, 1000, 400);
            writer.execute_batch("SAVEPOINT half").unwrap();
            writer.execute("UPDATE a SET x = zeroblob(1500)", []).unwrap();
            fill(&writer, 2000, 50);
            writer.execute_batch("ROLLBACK TO half; DELETE FROM a WHERE n % 3 = 0").unwrap();
            fill(&writer, 3000, 20);
            let within = seen(&writer);
            assert_eq!(seen(&reader), before, "nobody else sees it");
            writer.execute_batch(end).unwrap();
            let expected = if end == "COMMIT" { within } else { before };
            assert_eq!((seen(&writer), seen(&reader)), (expected, expected), "{end}");
        }
        for connection in [&reader, &writer] {
            let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(sound, "ok");
        }
    }

    #[test]
    fn a_commit_that_could_not_be_written_is_refused_and_undone() {
        let Site { counts, writer, reader, _folder } = site("refused", "FULL");
        fill(&writer, 0, 3);
        let before = seen(&writer);
        for (fault, code) in
            [(Fault::Writes, "SystemIoFailure"), (Fault::Full, "DiskFull"), (Fault::Syncs, "SystemIoFailure")]
        {
            counts.break_with(fault);
            let insert = writer.execute("INSERT INTO a VALUES (9, zeroblob(20000))", []);
            let refused = insert.unwrap_err().sqlite_error_code().unwrap();
            assert_eq!(format!("{refused:?}"), code);
            counts.mend();
            assert_eq!((seen(&writer), seen(&reader)), (before, before), "{fault:?}");
        }
        fill(&writer, 9, 1);
        assert_eq!((seen(&writer).0, seen(&reader).0), (4, 4));
    }

    #[test]
    fn what_could_not_be_written_before_the_index_tells_of_it_is_told_at_the_next_call() {
        let Site { counts, writer, _folder, .. } = site("untold", "OFF");
        fill(&writer, 0, 3);
        counts.break_with(Fault::Writes);
        // Without a sync SQLite asks nobody before it publishes.
        let told: Vec<_> =
            (3..6).map(|n| writer.execute("INSERT INTO a VALUES (?1, 'x')", [n]).is_err()).collect();
        assert!(told.contains(&true), "{told:?}");
    }

    #[test]
    fn there_has_to_be_something_to_lie_over() {
        assert_eq!(super::gathering(Some("nowhere")).unwrap_err(), super::VfsError::Missing);
    }
}
