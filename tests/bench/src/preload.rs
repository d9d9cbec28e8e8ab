//! A slower disk, and a count of what is asked of it, without a line in the product: see `preload.c`.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

const SOURCE: &str = include_str!("preload.c");

/// The compiled library, and the file of counts of one process.
#[derive(Debug)]
pub struct Preload {
    library: PathBuf,
    counts: PathBuf,
    delay_us: i64,
}

impl Preload {
    /// Compiles it into a folder. The file of counts lies there too, so one folder serves one process.
    pub fn new(folder: &Path, delay_us: u64) -> anyhow::Result<Self> {
        Self::with(folder, i64::try_from(delay_us)?)
    }

    /// One under which nothing is synced: for filling a database whose fate nobody minds.
    pub fn unsynced(folder: &Path) -> anyhow::Result<Self> {
        Self::with(folder, -1)
    }

    fn with(folder: &Path, delay_us: i64) -> anyhow::Result<Self> {
        let (source, library, counts) =
            (folder.join("preload.c"), folder.join("libpreload.so"), folder.join("syncs"));
        fs::write(&source, SOURCE)?;
        fs::write(&counts, [0; 16])?;
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let compiled = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .with_context(|| format!("run the C compiler {compiler}"))?;
        ensure!(compiled.success(), "{compiler} cannot compile the preload");
        Ok(Self { library, counts, delay_us })
    }

    /// Puts it under a program that is about to start.
    pub fn under<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("SYNC_COUNTS", &self.counts)
            .env("SYNC_DELAY_US", self.delay_us.to_string())
    }

    /// How often the program has called `fsync` and `fdatasync` so far.
    pub fn syncs(&self) -> anyhow::Result<Syncs> {
        let mut both = [0; 16];
        fs::File::open(&self.counts)?.read_exact_at(&mut both, 0)?;
        let number = |at: usize| u64::from_ne_bytes(both[at..at + 8].try_into().expect("eight bytes"));
        Ok(Syncs { fsync: number(0), fdatasync: number(8) })
    }
}

/// How often a program has asked for its bytes to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syncs {
    pub fsync: u64,
    pub fdatasync: u64,
}

impl Syncs {
    pub fn all(self) -> u64 {
        self.fsync + self.fdatasync
    }
}
