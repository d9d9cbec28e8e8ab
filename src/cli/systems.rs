//! `latchd systems`

use clap::Args;

use super::{
    print, print_json,
    table::{WIDTH, columns},
};
use crate::{
    drivers::{Declared, declared},
    model::{Capabilities, ProofLevel},
};

/// How to show the systems.
#[derive(Debug, Args)]
pub struct SystemsArgs {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SystemsArgs) -> anyhow::Result<()> {
    let all = declared();
    match args.json {
        true => print_json(&all),
        false => Ok(print(&listed(&all))?),
    }
}

/// A column a make, as many tables one below the other as the width asks for.
fn listed(all: &[Declared]) -> String {
    let mut tables = Vec::new();
    let mut rest = all;
    while !rest.is_empty() {
        let fits = |count: &usize| table(&rest[..*count]).lines().all(|line| line.chars().count() <= WIDTH);
        let count = (2..=rest.len()).take_while(fits).last().unwrap_or(1);
        tables.push(table(&rest[..count]));
        rest = &rest[count..];
    }
    format!(
        "{}\nvector: the bytes agree with a public source; peer: another implementation took\n\
         them; simulator: only our own did; site: recorded at a property. Nothing below\nsite is proven in the field.\n",
        tables.join("\n")
    )
}

fn table(makes: &[Declared]) -> String {
    let names: Vec<_> = makes.iter().map(name).collect();
    let heads: Vec<_> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    for it in makes {
        for (place, (what, cell)) in rows(&it.capabilities).into_iter().enumerate() {
            if lines.len() == place {
                lines.push(vec![what.to_owned()]);
            }
            lines[place].push(cell);
        }
    }
    columns(&heads, &lines)
}

fn name(it: &Declared) -> String {
    match it.line {
        Some(line) => format!("{} ({line})", it.system.as_str()),
        None => it.system.as_str().to_owned(),
    }
}

fn rows(can: &Capabilities) -> [(&'static str, String); 14] {
    let Capabilities {
        r#override,
        join,
        future_start,
        checkout,
        modify_stay,
        read_card,
        open_end,
        slots,
        unlock,
        chip_numbers,
        max_rooms,
        max_common,
        answer_means_written,
        parallel_encoders,
    } = can;
    let yes = |is_so: bool| if is_so { "yes" } else { "-" }.to_owned();
    [
        ("begin a stay", proof(*r#override)),
        ("join a stay", proof(*join)),
        ("start later", proof(*future_start)),
        ("free a room", proof(*checkout)),
        ("change a stay", proof(*modify_stay)),
        ("read a card", proof(*read_card)),
        ("no end", proof(*open_end)),
        ("PINs in slots", proof(*slots)),
        ("open a door", proof(*unlock)),
        ("read a chip", proof(*chip_numbers)),
        ("rooms a card", max_rooms.to_string()),
        ("common doors", max_common.to_string()),
        ("says written", yes(*answer_means_written)),
        ("side by side", yes(*parallel_encoders)),
    ]
}

fn proof(level: Option<ProofLevel>) -> String {
    match level {
        None => "-",
        Some(ProofLevel::Simulator) => "simulator",
        Some(ProofLevel::Vector) => "vector",
        Some(ProofLevel::Peer) => "peer",
        Some(ProofLevel::Site) => "site",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_make_has_a_column_with_what_its_driver_declares() {
        let text = listed(&declared());
        let row = |what: &str| -> Vec<&str> {
            let cells = text.lines().filter_map(|line| line.strip_prefix(what));
            cells.flat_map(str::split_whitespace).collect()
        };
        assert_eq!(
            row("free a room"),
            ["vector", "-", "-", "vector", "vector", "vector", "simulator", "-", "-", "-", "-", "-", "-"]
        );
        assert_eq!(
            row("side by side"),
            ["-", "yes", "-", "yes", "-", "-", "-", "-", "-", "-", "-", "yes", "-"]
        );
        assert_eq!(
            row("PINs in slots"),
            [
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "simulator",
                "simulator",
                "simulator",
                "vector",
                "-",
                "simulator"
            ]
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn a_make_is_known_by_the_name_that_the_configuration_has_for_it() {
        let json = serde_json::to_value(declared()).unwrap();
        assert_eq!(json[1]["system"], "visionline");
        assert_eq!(json[1]["line"], "tcp");
        assert_eq!(json[1]["capabilities"]["join"], "vector");
        assert_eq!(json[0].get("line"), None);
    }
}
