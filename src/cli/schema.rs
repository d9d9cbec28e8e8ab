//! `latchd schema`

use clap::Args;

use super::print_json;

/// Which language.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The HTTP API in place of the websocket, as an OpenAPI 3.1 document.
    #[arg(long)]
    openapi: bool,
}

pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    match args.openapi {
        true => print_json(&crate::cloud::api::openapi()),
        false => print_json(&crate::protocol::schema::schema()),
    }
}
