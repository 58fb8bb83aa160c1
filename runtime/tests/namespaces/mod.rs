//! Wires that exist only here: veth pairs between two network namespaces of a test's own. Nothing
//! leaves them. Needs root and `ip`.
#![allow(dead_code, reason = "not every program that includes this needs all of it")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Two namespaces with `wire0` in each, removed at the end whatever happens.
pub(crate) struct Namespaces(pub(crate) [String; 2]);

impl Namespaces {
    /// `None`, and the reason printed, where there can be none.
    pub(crate) fn new(mtu: u32) -> Option<Namespaces> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // SAFETY: takes nothing and cannot fail.
        #[allow(unsafe_code)]
        let root = unsafe { libc::geteuid() } == 0;
        if !root || Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: needs root and `ip`");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("ns-wire-{}-{number}-{side}", std::process::id());
        let made = Namespaces([name('a'), name('b')]);
        let [a, b] = &made.0;
        let up = format!("link set wire0 mtu {mtu} up");
        let commands = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("-n {a} link add wire0 type veth peer name wire0 netns {b}"),
        ];
        // No neighbour discovery of the kernel's own between our frames.
        let quiet =
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
        let exec = [format!("netns exec {a} {quiet}"), format!("netns exec {b} {quiet}")];
        let ups = [format!("-n {a} {up}"), format!("-n {b} {up}")];
        for command in commands.iter().chain(&exec).chain(&ups) {
            let done = Command::new("ip").args(command.split(' ')).output().unwrap();
            if !done.status.success() {
                let reason = String::from_utf8_lossy(&done.stderr);
                println!("skipped: `ip {command}`: {}", reason.trim());
                return None;
            }
        }
        Some(made)
    }

    /// Runs in a thread of its own within a namespace.
    pub(crate) fn within<T: Send>(&self, side: usize, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.0[side]);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(path).unwrap();
                // SAFETY: moves this thread only, which ends here.
                #[allow(unsafe_code)]
                let moved = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(moved, 0, "{}", io::Error::last_os_error());
                work()
            });
            thread.join().unwrap()
        })
    }

    /// One more wire between the two, of this name at both ends.
    pub(crate) fn add_pair(&self, name: &str) {
        self.ip(0, &format!("link add {name} type veth peer name {name} netns {}", self.0[1]));
        (0..2).for_each(|side| self.ip(side, &format!("link set {name} mtu 1500 up")));
    }

    /// Runs `ip` with these arguments in a namespace.
    pub(crate) fn ip(&self, side: usize, arguments: &str) {
        let arguments = format!("-n {} {arguments}", self.0[side]);
        assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A socket that receives every frame that comes to `wire0` of this thread's namespace.
pub(crate) fn receiver() -> File {
    receiver_at("wire0")
}

/// The same for another interface.
pub(crate) fn receiver_at(name: &str) -> File {
    let everything = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: takes no pointers; the result is checked.
    #[allow(unsafe_code)]
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, everything.into()) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    let room: libc::c_int = 64 << 20;
    let timeout = libc::timeval { tv_sec: 2, tv_usec: 0 };
    // SAFETY: both values live through the calls, and their sizes are given.
    #[allow(unsafe_code)]
    unsafe {
        let size = size_of::<libc::c_int>() as u32;
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size,
        );
        let size = size_of::<libc::timeval>() as u32;
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size,
        );
    }
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name ends in a zero; sockaddr_ll is plain numbers, for which all zeros is a
    // value; it lives through the call, and its size is given.
    #[allow(unsafe_code)]
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = everything;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32)
    };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor was just opened and nobody else owns it.
    #[allow(unsafe_code)]
    unsafe {
        File::from_raw_fd(fd)
    }
}

/// Has the system note when each frame came.
pub(crate) fn stamp_arrivals(socket: &File) {
    let on: libc::c_int = 1;
    let (fd, size) = (socket.as_raw_fd(), size_of_val(&on) as u32);
    // SAFETY: the number lives through the call, and its size is given.
    #[allow(unsafe_code)]
    let set = unsafe {
        let on = (&raw const on).cast();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on, size)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Takes all frames that have come; appends when each did, in nanoseconds.
pub(crate) fn take_arrivals(socket: &File, arrivals: &mut Vec<u64>) {
    let mut buffer = [0_u8; 64];
    loop {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = [0_u64; 16];
        // SAFETY: msghdr is numbers and pointers, for which all zeros is a value. All that it
        // points at lives through the calls, and its sizes are given; the system says of its
        // control data what it is.
        #[allow(unsafe_code)]
        let came = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            if libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) <= 0 {
                return;
            }
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            first
                .as_ref()
                .filter(|first| first.cmsg_type == libc::SCM_TIMESTAMPNS)
                .map(|_| libc::CMSG_DATA(first).cast::<libc::timespec>().read_unaligned())
        };
        let came = came.expect("a time of arrival");
        arrivals.push(came.tv_sec as u64 * 1_000_000_000 + came.tv_nsec as u64);
    }
}
