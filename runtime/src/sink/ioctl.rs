//! What the system tells of an interface by name (netdevice(7)): the system calls and nothing else.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Asks for the carrier (`linux/ethtool.h`).
const ETHTOOL_GLINK: u32 = 10;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// A socket that interfaces of this thread's network namespace are asked through.
#[derive(Debug)]
pub(super) struct Query(OwnedFd);

impl Query {
    pub(super) fn open() -> io::Result<Query> {
        #[allow(unsafe_code)]
        // SAFETY: takes no pointers; the result is checked before use.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        #[allow(unsafe_code)]
        // SAFETY: the descriptor was just opened and nobody else owns it.
        Ok(Query(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn ask(&self, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        #[allow(unsafe_code)]
        // SAFETY: each of the requests below reads and writes one ifreq, whose name ends in a
        // zero; one that reads through a pointer in it is given one that lives through the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), what, request as *mut libc::ifreq) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The longest packet that the interface takes.
    pub(super) fn mtu(&self, name: &str) -> io::Result<usize> {
        let mut request = request_for(name);
        self.ask(libc::SIOCGIFMTU as _, &mut request)?;
        #[allow(unsafe_code)]
        // SAFETY: SIOCGIFMTU has filled in this member of the union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(usize::try_from(mtu).unwrap_or(0))
    }

    /// Its number, which changes when it is made anew.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        let mut request = request_for(name);
        self.ask(libc::SIOCGIFINDEX as _, &mut request)?;
        #[allow(unsafe_code)]
        // SAFETY: SIOCGIFINDEX has filled in this member of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(u32::try_from(index).unwrap_or(0))
    }

    /// Its flags, `IFF_UP` and such.
    pub(super) fn flags(&self, name: &str) -> io::Result<libc::c_int> {
        let mut request = request_for(name);
        self.ask(libc::SIOCGIFFLAGS as _, &mut request)?;
        #[allow(unsafe_code)]
        // SAFETY: SIOCGIFFLAGS has filled in this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(flags.into())
    }

    /// Whether something is connected to it, as its driver says; not every driver does.
    pub(super) fn carrier(&self, name: &str) -> io::Result<bool> {
        let mut value = EthtoolValue { command: ETHTOOL_GLINK, data: 0 };
        let mut request = request_for(name);
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        self.ask(libc::SIOCETHTOOL as _, &mut request)?;
        Ok(value.data != 0)
    }
}

fn request_for(name: &str) -> libc::ifreq {
    #[allow(unsafe_code)]
    // SAFETY: ifreq is plain numbers, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, &from) in request.ifr_name[..room].iter_mut().zip(name.as_bytes()) {
        *to = from as libc::c_char;
    }
    request
}
