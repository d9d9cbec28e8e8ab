//! `latchd schema`

use clap::Args;

use super::print_json;
use crate::protocol::VERSIONS;

/// Which language.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The HTTP API in place of the websocket, as an OpenAPI 3.1 document.
    #[arg(long)]
    openapi: bool,
    /// The websocket's language in this version, 1 or 2 [default: the newest].
    #[arg(long, value_name = "VERSION", conflicts_with = "openapi", value_parser = version)]
    protocol: Option<u16>,
}

fn version(text: &str) -> Result<u16, String> {
    let known = VERSIONS.iter().find(|known| known.to_string() == text);
    known.copied().ok_or_else(|| format!("known are {VERSIONS:?}"))
}

pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    match args.openapi {
        true => print_json(&crate::cloud::api::openapi()),
        false => print_json(&crate::protocol::schema::schema(args.protocol.unwrap_or(VERSIONS[0]))),
    }
}
