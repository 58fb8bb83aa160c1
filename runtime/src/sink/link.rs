//! Interfaces: what they are, whether they are up, what they have counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::SinkError;
#[cfg(not(target_os = "linux"))]
use super::ifaddrs::Query;
#[cfg(target_os = "linux")]
use super::ioctl::Query;
use crate::packets::Mac;

/// How often an interface is looked at: as late may a pulled cable be noticed, of which the
/// system tells senders nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
                Err(SinkError::Down { state: LinkState::NoCarrier, .. }) if tries > 0 => tries -= 1,
                result => return result,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn find_once(name: &str) -> Result<Interface, SinkError> {
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
        let fail = |action| move |source| SinkError::Interface { action, name: name(), source };
        let query = Query::open().map_err(fail("ask about"))?;
        match look(&query, &found.name).0 {
            LinkState::Up => {}
            state => return Err(SinkError::Down { name: name(), state }),
        }
        let mtu = query.mtu(&found.name).map_err(fail("read the MTU"))?;
        Ok(Interface { name: name(), index: found.index, mac: mac.octets(), mtu })
    }

    /// Whether the system sends to the rest of the world through it (proc_net(5)); only Linux
    /// says so.
    #[must_use]
    pub fn has_default_route(&self) -> bool {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
        };
        is_default_route(&read("route"), &read("ipv6_route"), &self.name)
    }

    /// What it has counted since it was made; `None` if the system does not say, as only Linux
    /// does.
    pub(super) fn counters(&self) -> Option<Counters> {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
        counters_of(&text, &self.name)
    }
}

/// Reads `/proc/net/route` and `/proc/net/ipv6_route`.
fn is_default_route(v4: &str, v6: &str, name: &str) -> bool {
    let v4 = v4.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let v6 = v6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Interface, destination, ..., mask as the eighth.
    let v4 = v4.filter(|line| line.first() == Some(&name));
    let zeros = |word: Option<&&str>| word.is_some_and(|w| w.bytes().all(|byte| byte == b'0'));
    let mut v4 = v4.filter(|line| zeros(line.get(1)) && zeros(line.get(7)));
    // Destination and the bits of its prefix, ..., interface as the last.
    let v6 = v6.filter(|line| line.last() == Some(&name));
    let mut v6 = v6.filter(|line| zeros(line.first()) && zeros(line.get(1)));
    v4.next().is_some() || v6.next().is_some()
}

/// What an interface has counted of what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
}

impl Counters {
    /// What was counted after `begin`.
    pub(super) fn since(&self, begin: &Counters) -> Counters {
        Counters {
            packets: self.packets.saturating_sub(begin.packets),
            errors: self.errors.saturating_sub(begin.errors),
            dropped: self.dropped.saturating_sub(begin.dropped),
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.errors + self.dropped
    }
}

/// Reads `/proc/net/dev`: a line an interface, eight numbers of receiving, eight of sending.
fn counters_of(text: &str, name: &str) -> Option<Counters> {
    let numbers = text.lines().find_map(|line| {
        let (of, numbers) = line.rsplit_once(':')?;
        (of.trim() == name).then_some(numbers)
    })?;
    let numbers: Vec<u64> =
        numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let [_, packets, errors, dropped] = *numbers.get(8..12)? else { return None };
    Some(Counters { packets, errors, dropped })
}

/// Whether an interface can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It can.
    Up,
    /// Somebody has shut it down.
    Down,
    /// Nothing is connected to it, or the other end is down.
    NoCarrier,
    /// It is not there any more.
    Gone,
}

impl std::fmt::Display for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LinkState::Up => "is up",
            LinkState::Down => "is down",
            LinkState::NoCarrier => "has no carrier",
            LinkState::Gone => "is gone",
        })
    }
}

/// The state and number of an interface, now.
fn look(query: &Query, name: &str) -> (LinkState, u32) {
    let (Ok(index), Ok(flags)) = (query.index(name), query.flags(name)) else {
        return (LinkState::Gone, 0);
    };
    let state = if flags & libc::IFF_UP == 0 {
        LinkState::Down
    // The flag lags a second behind a cable pulled; the driver, where it says, does not.
    } else if flags & libc::IFF_RUNNING == 0 || matches!(query.carrier(name), Ok(false)) {
        LinkState::NoCarrier
    } else {
        LinkState::Up
    };
    (state, index)
}

/// What was seen of an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Looks before this one.
    pub(super) number: u64,
    pub(super) state: LinkState,
    /// The interface's number.
    pub(super) index: u32,
}

/// A thread that looks at an interface, so that senders need not: asking takes a lock that the
/// system may hold for long.
#[derive(Debug)]
pub(super) struct Watch {
    latest: Arc<Mutex<Look>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch an interface that is up.
    pub(super) fn start(interface: &Interface) -> std::io::Result<Watch> {
        let query = Query::open()?;
        let seen = Look { number: 0, state: LinkState::Up, index: interface.index };
        let latest = Arc::new(Mutex::new(seen));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("watch-link".to_owned()).spawn({
            let (latest, stop, name) = (latest.clone(), stop.clone(), interface.name.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::park_timeout(LOOK_EVERY);
                    let (state, index) = look(&query, &name);
                    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
                    *latest = Look { number: latest.number + 1, state, index };
                }
            }
        })?;
        Ok(Watch { latest, stop, thread: Some(thread) })
    }

    /// What was seen last.
    pub(super) fn latest(&self) -> Look {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only looks; nothing is lost if it ended early.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_and_without_a_space() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo:1 2 3 4 5 6 7 8 9 10 \
                    11 12 13 14 15 16\n  eth0: 1 2 3 4 5 6 7 8 90 100 110 120 13 14 15 16\n short: 1";
        let found = counters_of(text, "eth0");
        assert_eq!(found, Some(Counters { packets: 100, errors: 110, dropped: 120 }));
        assert_eq!(counters_of(text, "lo").map(|counters| counters.packets), Some(10));
        assert_eq!((counters_of(text, "short"), counters_of(text, "eth1")), (None, None));
    }

    #[test]
    fn default_routes_are_told_from_others() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                  eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n\
                  eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 {zeros} 00000400 1 0 00000003 eth2\n\
                          fe80{} 40 {zeros} 00 {zeros} 100 1 0 1 eth1\n",
            "0".repeat(28)
        );
        let is_default = |name| is_default_route(v4, &v6, name);
        assert_eq!(["eth0", "eth1", "eth2", "eth"].map(is_default), [true, false, true, false]);
    }
}
