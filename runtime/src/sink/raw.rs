//! A raw packet socket (packet(7)): the system calls and nothing else.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::port::{MOST_AT_ONCE, Parts};

/// Room for frames on their way; the kernel gives what it allows.
const SEND_BUFFER_BYTES: libc::c_int = 2 << 20;

/// Sends frames on one interface; receives none.
#[derive(Debug)]
pub(super) struct RawSocket(OwnedFd);

const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Points at the parts of a frame that are not empty; returns how many.
fn vectors(to: &mut [libc::iovec; 4], frame: Parts) -> usize {
    let parts = frame.into_iter().filter(|bytes| !bytes.is_empty());
    let filled = to.iter_mut().zip(parts).map(|(to, bytes)| {
        // The kernel only reads what it is to send.
        *to = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    });
    filled.count()
}

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

    /// As `Port::send`.
    pub(super) fn send<'a>(
        &self,
        mut frames: impl ExactSizeIterator<Item = Parts<'a>>,
    ) -> io::Result<usize> {
        match (frames.len(), frames.next()) {
            // The usual case when packets are paced: without room for many.
            (1, Some(frame)) => self.send_one(frame),
            (_, first) => self.send_many(first.into_iter().chain(frames)),
        }
    }

    fn send_one(&self, frame: Parts) -> io::Result<usize> {
        let mut parts = [NOTHING; 4];
        let len = vectors(&mut parts, frame);
        #[allow(unsafe_code)]
        // SAFETY: msghdr is numbers and pointers, for which all zeros is a value. The message
        // points at `parts`, which point at slices that the caller's frame keeps alive.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), len as _);
            libc::sendmsg(self.0.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) }
    }

    fn send_many<'a>(&self, frames: impl Iterator<Item = Parts<'a>>) -> io::Result<usize> {
        let mut parts = [[NOTHING; 4]; MOST_AT_ONCE];
        #[allow(unsafe_code)]
        // SAFETY: mmsghdr is numbers and pointers, for which all zeros is a value.
        let mut messages: [libc::mmsghdr; MOST_AT_ONCE] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        for ((parts, message), frame) in parts.iter_mut().zip(&mut messages).zip(frames) {
            message.msg_hdr.msg_iovlen = vectors(parts, frame) as _;
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            count += 1;
        }
        #[allow(unsafe_code)]
        // SAFETY: each of the first `count` messages points at the iovecs of one frame in `parts`,
        // which point at slices that the caller's frames keep alive.
        let sent = unsafe {
            libc::sendmmsg(
                self.0.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// Sends a frame of no bytes, which the system refuses for the header that it lacks. Until
    /// then it goes the way of every frame, so that its code and data are in the caches again
    /// when a due one follows a sleep: a microsecond less (`./run bench wire`).
    pub(super) fn warm_up(&self, frame: Parts) {
        // Its bytes may lie in another core's cache.
        frame.into_iter().for_each(|part| _ = std::hint::black_box(part.last()));
        // The refusal is what is wanted.
        let _ = self.send_one([&[]; 4]);
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
