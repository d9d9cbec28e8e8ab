//! The floor of a whole journey: the same shape as the agent (TLS websocket, one thread, a serial port), and nothing of
//! its work. For each message it makes a kilobyte durable, says eight bytes to the device, hears eight bytes, makes a
//! kilobyte durable again and says so. No JSON, no database, no second thread.

use std::path::PathBuf;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_serial::SerialPortBuilderExt;
use tokio_tungstenite::tungstenite::Message as Ws;

use crate::{cloud, floor::Disk};

/// What the device is told, and what it says.
pub const WORD: [u8; 8] = *b"ROOM 101";

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    url: String,
    #[arg(long)]
    ca: PathBuf,
    #[arg(long)]
    folder: PathBuf,
    /// Without one, messages are made durable as they come, all that have come in one write, and acknowledged.
    #[arg(long)]
    port: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &arguments.port {
            Some(port) => journeys(arguments, port).await,
            None => acknowledgements(arguments).await,
        }
    })
}

async fn journeys(arguments: &Arguments, port: &std::path::Path) -> anyhow::Result<()> {
    let mut disk = Disk::new(&arguments.folder)?;
    let mut port = tokio_serial::new(port.to_string_lossy(), 115_200).open_native_async()?;
    let mut socket = cloud::dial(&arguments.url, &arguments.ca).await?;
    let record = [3; 1024];
    let completion = "x".repeat(400);
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() {
            continue;
        }
        disk.write(&record)?;
        port.write_all(&WORD).await?;
        port.read_exact(&mut [0; WORD.len()]).await?;
        disk.write(&record)?;
        socket.send(Ws::text(completion.as_str())).await?;
    }
    Ok(())
}

async fn acknowledgements(arguments: &Arguments) -> anyhow::Result<()> {
    let mut disk = Disk::new(&arguments.folder)?;
    let mut socket = cloud::dial(&arguments.url, &arguments.ca).await?;
    let mut held = 0_u64;
    while let Some(Ok(first)) = socket.next().await {
        let mut messages = u64::from(first.is_text());
        while let Some(Some(Ok(more))) = socket.next().now_or_never() {
            messages += u64::from(more.is_text());
        }
        let bytes = usize::try_from(messages)? * 1024;
        disk.write(&vec![3; bytes.min(4096)])?;
        held += messages;
        socket.send(Ws::text(held.to_string())).await?;
    }
    Ok(())
}
