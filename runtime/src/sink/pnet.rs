//! Frames through pnet: slower than `raw.rs`, and there wherever pnet is.

use std::io;
use std::time::Duration;

use pnet_datalink::{Channel, Config, DataLinkSender, MacAddr, NetworkInterface};

use super::link::Interface;
use super::port::{MOST_AT_ONCE, Parts};

/// How long a call waits for room.
const WAIT: Duration = Duration::from_millis(1);

/// Sends frames on one interface, one a system call.
pub(super) struct PnetChannel {
    sender: Box<dyn DataLinkSender>,
    /// A frame whole, as pnet takes it.
    frame: Vec<u8>,
}

impl std::fmt::Debug for PnetChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PnetChannel")
    }
}

impl PnetChannel {
    pub(super) fn open(interface: &Interface) -> io::Result<PnetChannel> {
        // All that a channel is made from.
        let to = NetworkInterface {
            name: interface.name.clone(),
            description: String::new(),
            index: interface.index,
            mac: Some(MacAddr::from(interface.mac)),
            ips: Vec::new(),
            flags: 0,
        };
        // What arrives is nobody's concern here; pnet cannot be told to leave all of it out.
        let config = Config { write_timeout: Some(WAIT), promiscuous: false, ..Config::default() };
        match pnet_datalink::channel(&to, config).map_err(true_reason)? {
            Channel::Ethernet(sender, _) => Ok(PnetChannel { sender, frame: Vec::new() }),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "pnet sends no frames on it")),
        }
    }

    /// As `Port::send`.
    pub(super) fn send<'a>(
        &mut self,
        frames: impl Iterator<Item = Parts<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for parts in frames.take(MOST_AT_ONCE) {
            self.frame.clear();
            parts.into_iter().for_each(|part| self.frame.extend_from_slice(part));
            match self.sender.send_to(&self.frame, None) {
                Some(Ok(())) => count += 1,
                // The next call is about this frame, and says what is wrong.
                _ if count > 0 => break,
                Some(Err(error)) => return Err(in_the_systems_words(error)),
                None => return Err(io::Error::from(io::ErrorKind::Unsupported)),
            }
        }
        Ok(count)
    }
}

/// pnet has words of its own for two things: no room in time, and an error that is told by the
/// call after it.
fn in_the_systems_words(error: io::Error) -> io::Error {
    match (error.raw_os_error(), error.kind()) {
        (None, io::ErrorKind::TimedOut) => io::Error::from_raw_os_error(libc::EAGAIN),
        (None, io::ErrorKind::Other) => io::Error::from_raw_os_error(libc::ENOBUFS),
        _ => error,
    }
}

/// Where there are numbered devices, pnet tries them all and tells what was wrong with the last:
/// that there is none.
fn true_reason(error: io::Error) -> io::Error {
    if cfg!(target_os = "linux") || error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    let first = std::fs::OpenOptions::new().read(true).write(true).open("/dev/bpf0");
    first.err().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_as_by_the_system() {
        let told = |error| in_the_systems_words(error).raw_os_error();
        assert_eq!(told(io::Error::new(io::ErrorKind::TimedOut, "Timed out")), Some(libc::EAGAIN));
        assert_eq!(told(io::Error::other("Unexpected poll event")), Some(libc::ENOBUFS));
        for number in [libc::ENETDOWN, libc::ETIMEDOUT, libc::EMSGSIZE] {
            assert_eq!(told(io::Error::from_raw_os_error(number)), Some(number));
        }
    }
}
