//! The ways to an interface, behind one: each takes frames in parts.

use std::io;

use serde::Serialize;

use super::link::Interface;
use super::pnet::PnetChannel;
#[cfg(target_os = "linux")]
use super::raw::RawSocket;

/// Most frames handed over in one call.
pub(super) const MOST_AT_ONCE: usize = 64;

/// A frame in parts, any of which may be empty.
pub(super) type Parts<'a> = [&'a [u8]; 4];

/// How frames get to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendThrough {
    /// Linux's packet sockets, which take many frames a system call.
    #[cfg(target_os = "linux")]
    #[cfg_attr(target_os = "linux", default)]
    AfPacket,
    /// The library pnet, a frame a system call: packet sockets on Linux, BPF elsewhere.
    #[cfg_attr(not(target_os = "linux"), default)]
    Pnet,
}

/// An interface that frames can be sent on.
#[derive(Debug)]
pub(super) enum Port {
    #[cfg(target_os = "linux")]
    AfPacket(RawSocket),
    Pnet(PnetChannel),
}

impl Port {
    pub(super) fn open(through: SendThrough, interface: &Interface) -> io::Result<Port> {
        match through {
            #[cfg(target_os = "linux")]
            SendThrough::AfPacket => RawSocket::open(interface.index).map(Port::AfPacket),
            SendThrough::Pnet => PnetChannel::open(interface).map(Port::Pnet),
        }
    }

    /// Sends as many of the frames as are taken now, at most [`MOST_AT_ONCE`]; returns how
    /// many, at least one.
    ///
    /// # Errors
    /// The first frame was not taken: the system's reason, `EAGAIN` if it could be soon.
    pub(super) fn send<'a>(
        &mut self,
        frames: impl ExactSizeIterator<Item = Parts<'a>>,
    ) -> io::Result<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Port::AfPacket(socket) => socket.send(frames),
            Port::Pnet(channel) => channel.send(frames),
        }
    }

    /// Makes the next call of [`Self::send`] quicker, if it comes within microseconds and has
    /// this frame.
    pub(super) fn warm_up(&self, frame: Parts) {
        match self {
            #[cfg(target_os = "linux")]
            Port::AfPacket(socket) => socket.warm_up(frame),
            Port::Pnet(_) => {}
        }
    }

    /// Bytes that were taken and have not left the system yet, with its own about them; `None`
    /// if it does not say.
    pub(super) fn waiting_bytes(&self) -> Option<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Port::AfPacket(socket) => Some(socket.waiting_bytes()),
            Port::Pnet(_) => None,
        }
    }

    /// Waits after `EAGAIN` until frames are taken again, about a millisecond at most.
    pub(super) fn wait(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Port::AfPacket(socket) => socket.wait(1),
            // It has waited before it said so.
            Port::Pnet(_) => {}
        }
    }
}
