//! What the machine can do at best: the least that has to happen, without a queue, a language or a database.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

/// A file whose blocks are allocated, so that writing to it again is nothing but the write and one flush. SQLite's log
/// is such a file once it has been folded back for the first time.
pub struct Disk {
    file: File,
    size: usize,
    block: u64,
}

const BLOCK: usize = 4096;
const BLOCKS: u64 = 1024;

impl Disk {
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        Self::of(folder, BLOCK)
    }

    /// One whose writes are of another size.
    pub fn of(folder: &Path, size: usize) -> anyhow::Result<Self> {
        let file =
            File::options().create(true).truncate(true).read(true).write(true).open(folder.join("floor"))?;
        for block in 0..BLOCKS {
            file.write_all_at(&vec![1; size], block * size as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, size, block: 0 })
    }

    /// One durable write.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.block = (self.block + 1) % BLOCKS;
        self.file.write_all_at(bytes, self.block * self.size as u64)?;
        // Through the C library, where a preload can slow it down.
        self.file.sync_data()?;
        Ok(())
    }

    /// How long each of so many durable writes of a block takes.
    pub fn block(&mut self, writes: usize) -> anyhow::Result<Vec<Duration>> {
        let bytes = vec![2; self.size];
        let mut took = Vec::with_capacity(writes);
        for _ in 0..writes {
            let began = Instant::now();
            self.write(&bytes)?;
            took.push(began.elapsed());
        }
        Ok(took)
    }
}
