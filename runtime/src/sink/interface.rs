//! A network interface, through a raw packet socket.

use std::io;
use std::time::{Duration, Instant};

use super::raw::{self, MOST_AT_ONCE, RawSocket};
use super::{Item, Sent, Sink, SinkError};
use crate::packets::{ETHERNET_BYTES, Frame, Mac, Payload};
use crate::render::Event;

/// How long a frame may wait for a full queue before it counts as dropped.
const DEADLINE: Duration = Duration::from_millis(100);
/// How long once the queue has been full for that long.
const STUCK: Duration = Duration::from_millis(1);

const NO_CARRIER: &str = "has no carrier";

/// What becomes of packets above the MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Oversize {
    /// Stop with an error.
    #[default]
    Error,
    /// Leave them out, and count them.
    Skip,
    /// Shorten their payload to the MTU, lengths and checksums made to fit, and count them.
    Truncate,
}

/// An interface that frames can go out on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The longest IP packet it takes.
    pub mtu: usize,
}

/// The names of all interfaces.
#[must_use]
pub fn interface_names() -> Vec<String> {
    pnet_datalink::interfaces().into_iter().map(|interface| interface.name).collect()
}

impl Interface {
    /// Looks an interface up.
    ///
    /// # Errors
    /// There is none of this name, it is not Ethernet, it is down, or it has
    /// had no carrier for a second: the kernel takes a while to notice one.
    pub fn find(name: &str) -> Result<Interface, SinkError> {
        let mut tries = 20;
        loop {
            match Interface::find_once(name) {
                Err(SinkError::Down { state: NO_CARRIER, .. }) if tries > 0 => tries -= 1,
                result => return result,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn find_once(name: &str) -> Result<Interface, SinkError> {
        let interfaces = pnet_datalink::interfaces();
        let Some(found) = interfaces.iter().find(|interface| interface.name == name) else {
            let known: Vec<String> = interfaces.iter().map(|i| format!("`{}`", i.name)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(SinkError::NoInterface { name: name.to_owned(), known });
        };
        let name = || name.to_owned();
        let Some(mac) = found.mac else {
            return Err(SinkError::NotEthernet { name: name() });
        };
        let down = |state| Err(SinkError::Down { name: name(), state });
        if !found.is_up() {
            return down("is down");
        }
        if found.flags & libc::IFF_RUNNING as u32 == 0 {
            return down(NO_CARRIER);
        }
        let mtu = raw::mtu(&found.name).map_err(|source| SinkError::Interface {
            action: "read the MTU",
            name: name(),
            source,
        })?;
        Ok(Interface { name: name(), index: found.index, mac: mac.octets(), mtu })
    }
}

/// Sends frames at full length.
#[derive(Debug)]
pub struct InterfaceSink {
    interface: Interface,
    socket: RawSocket,
    payload: Payload,
    oversize: Oversize,
    /// The queue was full until the last deadline.
    stuck: bool,
    sent: Sent,
}

impl InterfaceSink {
    /// Opens a raw socket. `payload` is the one that the frames are rendered with.
    ///
    /// # Errors
    /// No permission (`CAP_NET_RAW` is needed), or the interface is gone.
    pub fn open(
        interface: Interface,
        payload: Payload,
        oversize: Oversize,
    ) -> Result<InterfaceSink, SinkError> {
        let socket = RawSocket::open(interface.index)
            .map_err(|source| system_error("open a raw socket", &interface.name, source))?;
        Ok(InterfaceSink {
            interface,
            socket,
            payload,
            oversize,
            stuck: false,
            sent: Sent::default(),
        })
    }

    fn send(&mut self, events: &[Event<Frame>]) -> Result<(), SinkError> {
        for batch in events.chunks(MOST_AT_ONCE) {
            let mut done = 0;
            let mut waiting: Option<Instant> = None;
            while done < batch.len() {
                let frames = batch[done..]
                    .iter()
                    .map(|event| [event.item.headers(), self.payload.of(&event.item)]);
                let error = match self.socket.send(frames) {
                    Ok(count) => {
                        for event in &batch[done..done + count] {
                            self.sent.count(event);
                        }
                        done += count;
                        waiting = None;
                        self.stuck = false;
                        continue;
                    }
                    Err(error) => error,
                };
                match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::ENOBUFS) => {
                        let since = *waiting.get_or_insert_with(Instant::now);
                        let patience = if self.stuck { STUCK } else { DEADLINE };
                        if since.elapsed() < patience {
                            self.back_off(&error);
                        } else {
                            self.stuck = true;
                            self.sent.dropped += 1;
                            done += 1;
                            waiting = None;
                        }
                    }
                    Some(libc::EMSGSIZE) => return Err(self.oversize_error(&batch[done].item)),
                    _ => return Err(system_error("send", &self.interface.name, error)),
                }
            }
        }
        Ok(())
    }

    fn back_off(&self, error: &io::Error) {
        if error.raw_os_error() == Some(libc::EAGAIN) {
            self.socket.wait(1);
        } else {
            // The device's queue is full, of which a socket cannot tell the end.
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    fn oversize_error(&self, frame: &Frame) -> SinkError {
        let bytes = frame.len() - ETHERNET_BYTES;
        SinkError::Oversize { name: self.interface.name.clone(), bytes, mtu: self.interface.mtu }
    }
}

impl Sink<Frame> for InterfaceSink {
    fn write(&mut self, events: &[Event<Frame>]) -> Result<(), SinkError> {
        let longest = self.interface.mtu + ETHERNET_BYTES;
        let mut begin = 0;
        for (index, event) in events.iter().enumerate() {
            if event.item.bytes() <= longest {
                continue;
            }
            self.send(&events[begin..index])?;
            begin = index + 1;
            match self.oversize {
                Oversize::Error => return Err(self.oversize_error(&event.item)),
                Oversize::Skip => self.sent.oversize_skipped += 1,
                Oversize::Truncate => {
                    let mtu = u16::try_from(self.interface.mtu).unwrap_or(u16::MAX);
                    match event.item.shortened(mtu, &self.payload) {
                        Some(item) => {
                            self.sent.oversize_truncated += 1;
                            self.send(&[Event { item, ..*event }])?;
                        }
                        None => self.sent.oversize_skipped += 1,
                    }
                }
            }
        }
        self.send(&events[begin..])
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}

fn system_error(action: &'static str, name: &str, source: io::Error) -> SinkError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SinkError::Permission { name, source },
        Some(libc::ENETDOWN) => SinkError::Down { name, state: "went down" },
        Some(libc::ENXIO | libc::ENODEV) => SinkError::Down { name, state: "is gone" },
        _ => SinkError::Interface { action, name, source },
    }
}
