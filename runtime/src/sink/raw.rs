//! A raw packet socket (packet(7)): the system calls and nothing else.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Most frames handed to the kernel in one call.
pub(super) const MOST_AT_ONCE: usize = 64;
/// Room for frames on their way; the kernel gives what it allows.
const SEND_BUFFER_BYTES: libc::c_int = 2 << 20;

/// Sends frames on one interface; receives none.
#[derive(Debug)]
pub(super) struct RawSocket(OwnedFd);

/// A frame in parts, any of which may be empty.
pub(super) type Parts<'a> = [&'a [u8]; 4];

impl RawSocket {
    /// A socket bound to the interface of this index.
    pub(super) fn open(index: u32) -> io::Result<RawSocket> {
        // Protocol 0: nothing that arrives is copied to us.
        #[allow(unsafe_code)]
        // SAFETY: takes no pointers; the result is checked before use.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        #[allow(unsafe_code)]
        // SAFETY: the descriptor was just opened and nobody else owns it.
        let socket = RawSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        #[allow(unsafe_code)]
        // SAFETY: sockaddr_ll is plain numbers, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        #[allow(unsafe_code)]
        // SAFETY: the address lives through the call and its size is given.
        let bound = unsafe {
            libc::bind(
                socket.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        // A smaller buffer only means more waiting, so the result does not matter.
        #[allow(unsafe_code)]
        // SAFETY: the number lives through the call and its size is given.
        unsafe {
            libc::setsockopt(
                socket.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&SEND_BUFFER_BYTES as *const libc::c_int).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
        Ok(socket)
    }

    /// Sends as many of the frames as the kernel takes now, at most
    /// [`MOST_AT_ONCE`]; returns how many, at least one.
    pub(super) fn send<'a>(&self, frames: impl Iterator<Item = Parts<'a>>) -> io::Result<usize> {
        const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut parts = [[NOTHING; 4]; MOST_AT_ONCE];
        let mut lens = [0; MOST_AT_ONCE];
        let mut count = 0;
        for ((to, len), frame) in parts.iter_mut().zip(&mut lens).zip(frames) {
            for bytes in frame.into_iter().filter(|bytes| !bytes.is_empty()) {
                // The kernel only reads what it is to send.
                to[*len] = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
                *len += 1;
            }
            count += 1;
        }
        #[allow(unsafe_code)]
        // SAFETY: mmsghdr is numbers and pointers, for which all zeros is a value.
        let mut messages: [libc::mmsghdr; MOST_AT_ONCE] = unsafe { std::mem::zeroed() };
        for ((message, parts), len) in messages[..count].iter_mut().zip(&mut parts).zip(lens) {
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = len as _;
        }
        let fd = self.0.as_raw_fd();
        let sent = if count == 1 {
            #[allow(unsafe_code)]
            // SAFETY: the message points at the iovecs of one frame in `parts`, which
            // point at slices that the caller's frames keep alive.
            let sent = unsafe { libc::sendmsg(fd, &messages[0].msg_hdr, libc::MSG_DONTWAIT) };
            sent.min(1)
        } else {
            #[allow(unsafe_code)]
            // SAFETY: as above, for each of the first `count` messages.
            let sent = unsafe {
                libc::sendmmsg(
                    fd,
                    messages.as_mut_ptr(),
                    count as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            sent as isize
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// Bytes that were taken and have not left the system yet, with its own about them.
    pub(super) fn waiting_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        #[allow(unsafe_code)]
        // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int, which lives through the call.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ as _, &raw mut bytes) };
        if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
    }

    /// Waits until the socket takes frames again, at most so long.
    pub(super) fn wait(&self, milliseconds: i32) {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        #[allow(unsafe_code)]
        // SAFETY: one pollfd, which lives through the call. Whatever comes
        // back, the next send says how things are.
        unsafe {
            libc::poll(&raw mut poll, 1, milliseconds);
        }
    }
}
