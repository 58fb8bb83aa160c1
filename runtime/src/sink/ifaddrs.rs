//! What systems other than Linux tell of an interface by name (getifaddrs(3)): the system calls
//! and nothing else. For FreeBSD and macOS.

use std::ffi::{CStr, CString};
use std::io;

/// What interfaces are asked through; nothing, here.
#[derive(Debug)]
pub(super) struct Query;

impl Query {
    pub(super) fn open() -> io::Result<Query> {
        Ok(Query)
    }

    /// What is found in the entry of an interface's link layer.
    fn entry<T>(&self, name: &str, read: impl Fn(&libc::ifaddrs) -> T) -> io::Result<T> {
        let mut first = std::ptr::null_mut();
        #[allow(unsafe_code)]
        // SAFETY: writes one pointer, which lives through the call; the result is checked.
        if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut found = None;
        let mut next = first;
        #[allow(unsafe_code)]
        // SAFETY: the list's entries and all that they point at live until it is freed, names end
        // in a zero, and addresses may be null. It is freed once, and nothing of it is kept.
        unsafe {
            while let (None, Some(entry)) = (&found, next.as_ref()) {
                let is_link = entry
                    .ifa_addr
                    .as_ref()
                    .is_some_and(|address| i32::from(address.sa_family) == libc::AF_LINK);
                if is_link && CStr::from_ptr(entry.ifa_name).to_bytes() == name.as_bytes() {
                    found = Some(read(entry));
                }
                next = entry.ifa_next;
            }
            libc::freeifaddrs(first);
        }
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENXIO))
    }

    fn data<T>(&self, name: &str, read: impl Fn(&libc::if_data) -> T) -> io::Result<T> {
        #[allow(unsafe_code)]
        // SAFETY: the data of an entry of the link layer is an if_data, or null.
        let data = |entry: &libc::ifaddrs| unsafe {
            entry.ifa_data.cast::<libc::if_data>().as_ref().map(&read)
        };
        self.entry(name, data)?.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
    }

    /// The longest packet that the interface takes.
    pub(super) fn mtu(&self, name: &str) -> io::Result<usize> {
        self.data(name, |data| usize::try_from(data.ifi_mtu).unwrap_or(usize::MAX))
    }

    /// Its number, which changes when it is made anew.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        let name = CString::new(name)?;
        #[allow(unsafe_code)]
        // SAFETY: the name ends in a zero and lives through the call.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(io::Error::last_os_error()),
            index => Ok(index),
        }
    }

    /// Its flags, `IFF_UP` and such.
    pub(super) fn flags(&self, name: &str) -> io::Result<libc::c_int> {
        self.entry(name, |entry| entry.ifa_flags as libc::c_int)
    }

    /// Whether something is connected to it, as its driver says; not every driver does.
    #[cfg(target_os = "freebsd")]
    pub(super) fn carrier(&self, name: &str) -> io::Result<bool> {
        let down = libc::LINK_STATE_DOWN;
        self.data(name, |data| libc::c_int::from(data.ifi_link_state) != down)
    }

    /// The entry does not say whether something is connected.
    #[cfg(not(target_os = "freebsd"))]
    pub(super) fn carrier(&self, _name: &str) -> io::Result<bool> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
