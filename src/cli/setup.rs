//! `latchd setup SYSTEM --from FILE`, or `--discover`

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;
use jiff::tz::TimeZone;

use super::print;
use crate::{
    config::{AgentConfig, Change, ImportRow, Imported, import, rows},
    drivers::{discover::discover, probe::Tools},
    seams::{Clock, Random, SystemNet},
};

/// What `latchd setup` is told.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// The access system, by its name in the configuration.
    #[arg(value_name = "SYSTEM")]
    system: String,
    /// The spreadsheet, saved as CSV in UTF-8. Its first line names the columns: kind (room, common or encoder), name (as the
    /// access system spells it), display_name, number (of a common door; of an encoder's terminal).
    #[arg(long, value_name = "FILE", required_unless_present = "discover")]
    from: Option<PathBuf>,
    /// Ask the access system itself for its rooms, instead of a spreadsheet. Visionline with its Web API can tell.
    #[arg(long, conflicts_with = "from")]
    discover: bool,
    /// Write the changes. Without it they are only shown.
    #[arg(long)]
    apply: bool,
    /// Take out what the spreadsheet does not have, of those kinds that it has.
    #[arg(long)]
    take_out: bool,
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    config: PathBuf,
}

pub(super) async fn run(args: &SetupArgs) -> anyhow::Result<()> {
    let text = fs::read_to_string(&args.config).with_context(|| format!("read {}", args.config.display()))?;
    let (rows, source) = match &args.from {
        Some(file) => {
            let spreadsheet = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            let rows = rows(&spreadsheet).with_context(|| format!("read {}", file.display()))?;
            (rows, file.display().to_string())
        }
        None => (listed(args, &text).await?, format!("what {} lists", args.system)),
    };
    let imported = import(&text, &args.system, &rows, args.take_out)
        .with_context(|| format!("bring {source} into {}", args.config.display()))?;
    print(&told(&imported))?;
    if imported.changes.is_empty() {
        return Ok(print("Nothing to change.\n")?);
    }
    judge(args, &imported).inspect_err(|_| {
        let _ = writeln!(
            io::stderr(),
            "latchd: with these changes the configuration would be wrong; nothing was written"
        );
    })?;
    let count = imported.changes.len();
    if !args.apply {
        return Ok(print(&format!("{count} changes. Nothing was written; --apply writes them.\n"))?);
    }
    replace(&args.config, &text, &imported.text)
        .with_context(|| format!("write {}", args.config.display()))?;
    Ok(print(&format!(
        "{count} changes written to {}. A running agent takes them over with SIGHUP\n(systemctl reload latchd).\n",
        args.config.display()
    ))?)
}

/// What the system itself lists.
async fn listed(args: &SetupArgs, text: &str) -> anyhow::Result<Vec<ImportRow>> {
    let config = AgentConfig::from_toml(&args.config, text)?;
    let system = config.systems.iter().find(|system| system.name.as_str() == args.system);
    let system = system.with_context(|| {
        let names: Vec<_> = config.systems.iter().map(|system| system.name.as_str()).collect();
        format!(
            "there is no system {:?} in {}; there are: {}",
            args.system,
            args.config.display(),
            names.join(", ")
        )
    })?;
    let time_zone = TimeZone::get(&config.site.time_zone).context("the site's time zone")?;
    let tools =
        Tools { net: Arc::new(SystemNet), clock: Clock::system(), random: Random::system(), time_zone };
    let Some(discovered) = discover(system, &tools).await else {
        bail!("system {} cannot list its doors: bring them in with --from FILE", args.system);
    };
    let discovered = discovered.with_context(|| format!("ask {} for its doors", args.system))?;
    if !discovered.others.is_empty() {
        let names = discovered.others.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if discovered.others.len() <= 5 { "" } else { ", …" };
        print(&format!(
            "  {} more that are no guest rooms ({names}{more}): their numbers are not told, bring them in with --from\n",
            discovered.others.len()
        ))?;
    }
    Ok(discovered.rows)
}

/// Whether the agent would take the file as it is to be.
fn judge(args: &SetupArgs, imported: &Imported) -> anyhow::Result<()> {
    let config = AgentConfig::from_toml(&args.config, &imported.text)?;
    match crate::agent::mistakes(&config).as_slice() {
        [] => Ok(()),
        mistakes => bail!("{}", mistakes.join("; ")),
    }
}

fn told(imported: &Imported) -> String {
    let mut text: String = imported.changes.iter().map(|change: &Change| format!("{change}\n")).collect();
    for (said, here) in &imported.lost_zeros {
        text += &format!(
            "! {said:?} is new, and {here:?} is there already: a spreadsheet may have dropped the zeros\n"
        );
    }
    if !imported.only_here.is_empty() {
        let names: Vec<_> =
            imported.only_here.iter().map(|(kind, name)| format!("{} {name}", kind.as_str())).collect();
        let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if names.len() <= 5 { "" } else { ", …" };
        text += &format!(
            "  {} not in the spreadsheet stay ({shown}{more}); --take-out takes them out\n",
            names.len()
        );
    }
    text
}

/// Puts a new text in a file's place, whole or not at all, with its owner and permissions, if it still says what it said.
fn replace(path: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    // What a link points to is replaced, not the link.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new().prefix(".latchd-setup-").tempfile_in(folder)?;
    draft.write_all(to.as_bytes())?;
    let there = fs::metadata(&path)?;
    let own = draft.as_file().metadata()?;
    if (there.uid(), there.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::fchown(draft.as_file(), Some(there.uid()), Some(there.gid()))
            .context("give the new file to the old one's owner; run this as root or as that user")?;
    }
    draft.as_file().set_permissions(there.permissions())?;
    draft.as_file().sync_all()?;
    if fs::read_to_string(&path)? != from {
        bail!("somebody else has changed it meanwhile: run this again");
    }
    draft.persist(&path).map_err(|error| error.error)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error: io::Error| error.into())
}
