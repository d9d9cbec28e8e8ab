//! A serial port made of a pty, published through a link as udev's by-id links are.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

/// How long a client's exclusive mode may outlive it.
const EXCLUSIVE_FOR: Duration = Duration::from_millis(50);

/// The device's end of a serial line. Dropping it is pulling the plug: the link goes, and whoever has the port open
/// reads zero bytes.
///
/// It does not imitate speed, parity, framing errors, BREAK, or modem lines (a pty has none of them).
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<OwnedFd>,
    // Without a holder of our own, reading the master fails whenever no client has the port open.
    _slave: Arc<OwnedFd>,
    target: PathBuf,
    link: PathBuf,
}

impl Pty {
    /// Opens a line and publishes its port at `link`, replacing what was there.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(link: &Path) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(
            name.as_c_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Raw before anybody can open it: a fresh pty echoes, and takes 03 for an interrupt.
        let mut settings = tcgetattr(&slave)?;
        settings.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        rustix::io::ioctl_fionbio(&master, true)?;

        let target = PathBuf::from(name.to_string_lossy().into_owned());
        let mut fresh = link.as_os_str().to_owned();
        fresh.push(".new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(&target, &fresh)?;
        std::fs::rename(&fresh, link)?;
        #[expect(
            deprecated,
            reason = "unsound only for a type that swaps its descriptor; ours is an `OwnedFd`, and the successor is unsafe"
        )]
        let master = AsyncFd::new(master)?;
        let slave = Arc::new(slave);
        tokio::spawn(keep_open_to_all(Arc::downgrade(&slave)));
        Ok(Self { master, _slave: slave, target, link: link.to_owned() })
    }
}

/// Takes back the exclusive mode that clients set. On a real port it ends with the last descriptor; here ours stays
/// open, and a client that was killed would shut out every later one that is not root. Clients still see each other by
/// the lock on the file.
async fn keep_open_to_all(slave: Weak<OwnedFd>) {
    let mut ticks = tokio::time::interval(EXCLUSIVE_FOR);
    loop {
        ticks.tick().await;
        let Some(slave) = slave.upgrade() else { return };
        if let Err(error) = ioctl_tiocnxcl(&*slave) {
            tracing::warn!(%error, "the pretend port stays exclusive");
            return;
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Another simulator may have taken the name over; its link stays.
        if std::fs::read_link(&self.link).is_ok_and(|target| target == self.target) {
            let _gone_is_fine = std::fs::remove_file(&self.link);
        }
    }
}

impl AsyncRead for Pty {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(cx))?;
            let read = guard.try_io(|master| Ok(rustix::io::read(master, buf.initialize_unfilled())?));
            if let Ok(result) = read {
                buf.advance(result?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|master| Ok(rustix::io::write(master, bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_serial::SerialPortBuilderExt;

    use super::*;

    fn port(link: &Path) -> tokio_serial::SerialStream {
        tokio_serial::new(link.to_string_lossy(), 9600).open_native_async().unwrap()
    }

    #[tokio::test]
    async fn every_byte_value_passes_unchanged_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("encoder.tty");
        let mut device = Pty::open(&link).unwrap();
        let mut client = port(&link);
        let all: Vec<u8> = (0..=255).collect();
        let mut heard = vec![0; 256];
        client.write_all(&all).await.unwrap();
        device.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, all);
        device.write_all(&all).await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, all);
    }

    #[tokio::test]
    async fn pulling_the_plug_removes_the_link_and_ends_the_clients_reads() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("encoder.tty");
        let device = Pty::open(&link).unwrap();
        let mut client = port(&link);
        drop(device);
        assert!(!link.is_symlink());
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        drop(client);

        let mut device = Pty::open(&link).unwrap();
        let mut client = port(&link);
        client.write_all(b"back").await.unwrap();
        let mut heard = [0; 4];
        device.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"back");
    }

    #[tokio::test]
    async fn a_link_that_another_line_took_over_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("encoder.tty");
        let first = Pty::open(&link).unwrap();
        let _second = Pty::open(&link).unwrap();
        drop(first);
        assert!(link.is_symlink());
    }
}
