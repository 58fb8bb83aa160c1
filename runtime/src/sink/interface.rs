//! One network interface or two.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::link::{Counters, Interface, LinkState, Watch};
use super::port::{MOST_AT_ONCE, Parts, Port, SendThrough};
use super::{Item, Sent, Sink, SinkError};
use crate::pace::show_duration;
use crate::packets::{ETHERNET_BYTES, Frame, Payload};
use crate::prefix::{Prefix, address_of};
use crate::render::Event;

/// How long a frame may wait for a full queue before it counts as dropped.
const DEADLINE: Duration = Duration::from_millis(100);
/// How long once the queue has been full for that long.
const STUCK: Duration = Duration::from_millis(1);
/// How long what was taken may need to leave the system at the end of a run.
const DRAIN: Duration = Duration::from_secs(1);
/// What opening a way to an interface is called.
const OPEN: &str = "send raw frames";
/// Destination and source; a tag comes after them (IEEE 802.1Q).
const ADDRESS_BYTES: usize = 12;

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

/// What becomes of a run while an interface is down, gone, or has no carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDown {
    /// Wait until it is up again, then go on where the run stopped.
    #[default]
    Wait,
    /// Leave out, and count, what is due meanwhile.
    Skip,
    /// Stop with an error.
    Abort,
}

/// Where a sink's few lines for people go.
#[derive(Clone)]
pub struct Log(pub Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

impl Default for Log {
    /// Nowhere.
    fn default() -> Log {
        Log(Arc::new(|_| {}))
    }
}

/// How frames are sent.
#[derive(Clone, Debug, Default)]
pub struct WireOptions {
    /// The payload that the frames are rendered with.
    pub payload: Payload,
    /// What becomes of packets above the MTU.
    pub oversize: Oversize,
    /// What becomes of the run while an interface is down.
    pub on_down: OnDown,
    /// How frames get to the interface.
    pub send_through: SendThrough,
    /// The number of the VLAN that frames are tagged for, 1 to 4094.
    pub vlan: Option<u16>,
    /// The only networks that packets may go to; any if there is none.
    pub allow: Vec<Prefix>,
    /// Told when an interface goes down and when it is up again.
    pub log: Log,
}

/// What went to an interface, and what it has counted itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// The interface.
    pub name: String,
    /// Packets that it took from here.
    pub sent: u64,
    /// Packets that it counted as sent meanwhile, others' too; `None` if it was made anew.
    pub counted: Option<u64>,
    /// Packets that it counted as dropped or failed.
    pub lost: u64,
}

/// One interface, the way to it, and how it is.
#[derive(Debug)]
struct Side {
    interface: Interface,
    port: Port,
    watch: Watch,
    /// Since when it cannot send, and the first look that can say otherwise.
    down: Option<(Instant, u64)>,
    /// It has come up again, and nothing was sent since: the system may still have to say that
    /// it was down.
    back: bool,
    /// The queue was full until the last deadline.
    stuck: bool,
    sent: u64,
    /// At the beginning, as long as it is the same interface.
    counters: Option<Counters>,
}

impl Side {
    /// What the interface has counted since the beginning.
    fn counted(&self) -> Option<Counters> {
        let (begin, now) = self.counters.zip(self.interface.counters())?;
        Some(now.since(&begin))
    }

    /// Whether something that was taken has not left the system yet.
    fn has_waiting(&self) -> bool {
        let waits = || match self.port.waiting_bytes() {
            Some(bytes) => bytes > 0,
            None => self.counted().is_some_and(|seen| seen.packets + seen.lost() < self.sent),
        };
        self.down.is_none() && waits()
    }
}

/// Sends frames at full length: all on one interface, or each side of the conversations on an
/// interface of its own.
#[derive(Debug)]
pub struct InterfaceSink {
    sides: Vec<Side>,
    options: WireOptions,
    tag: Vec<u8>,
    sent: Sent,
}

impl InterfaceSink {
    /// Opens a way to each interface: one, or one for the side that begins conversations and
    /// one for the other.
    ///
    /// # Errors
    /// No permission (on Linux `CAP_NET_RAW` is needed), or an interface is gone.
    pub fn open(
        interfaces: Vec<Interface>,
        options: WireOptions,
    ) -> Result<InterfaceSink, SinkError> {
        let open = |interface: Interface| {
            let fail = |source| system_error(OPEN, &interface.name, source);
            let port = Port::open(options.send_through, &interface).map_err(fail)?;
            let watch = Watch::start(&interface).map_err(|source| SinkError::Interface {
                action: "watch the state",
                name: interface.name.clone(),
                source,
            })?;
            let counters = interface.counters();
            Ok(Side {
                interface,
                port,
                watch,
                down: None,
                back: false,
                stuck: false,
                sent: 0,
                counters,
            })
        };
        let sides = interfaces.into_iter().map(open).collect::<Result<_, SinkError>>()?;
        let tag = |id: u16| [[0x81, 0x00], id.to_be_bytes()].concat();
        let tag = options.vlan.map_or_else(Vec::new, tag);
        Ok(InterfaceSink { sides, tag, options, sent: Sent::default() })
    }

    /// The interface that a frame goes out on.
    #[inline]
    fn side_of(&self, frame: &Frame) -> usize {
        frame.side().min(self.sides.len().saturating_sub(1))
    }

    /// Refuses a batch with a packet to where none may go, before any of it is sent.
    fn check_destinations(&self, events: &[Event<Frame>]) -> Result<(), SinkError> {
        if self.options.allow.is_empty() {
            return Ok(());
        }
        let refused = events.iter().map(|event| event.item.destination()).find(|&(v6, address)| {
            !self.options.allow.iter().any(|prefix| prefix.holds(v6, address))
        });
        match refused {
            None => Ok(()),
            Some((is_v6, address)) => Err(SinkError::refused(is_v6, address, &self.options.allow)),
        }
    }

    /// Sends frames of one side, none of them above the MTU.
    fn send(&mut self, side: usize, events: &[Event<Frame>]) -> Result<(), SinkError> {
        let mut done = 0;
        let mut waiting: Option<Instant> = None;
        while done < events.len() {
            if !self.is_up(side, events.len() - done)? {
                self.sent.down_skipped += (events.len() - done) as u64;
                return Ok(());
            }
            let batch = &events[done..(done + MOST_AT_ONCE).min(events.len())];
            let frames =
                batch.iter().map(|event| parts(&event.item, &self.tag, &self.options.payload));
            let Side { port, back, stuck, sent, .. } = &mut self.sides[side];
            let error = match port.send(frames) {
                Ok(count) => {
                    batch[..count].iter().for_each(|event| self.sent.count(event));
                    done += count;
                    *sent += count as u64;
                    waiting = None;
                    (*back, *stuck) = (false, false);
                    continue;
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    let since = *waiting.get_or_insert_with(Instant::now);
                    let patience = if *stuck { STUCK } else { DEADLINE };
                    if since.elapsed() < patience {
                        back_off(port, &error);
                    } else {
                        *stuck = true;
                        self.sent.dropped += 1;
                        done += 1;
                        waiting = None;
                    }
                }
                Some(libc::EMSGSIZE) => {
                    self.after_a_smaller_mtu(side, &events[done], events.len() - done - 1)?;
                    done += 1;
                }
                Some(libc::ENETDOWN) if std::mem::take(back) => {}
                Some(libc::ENETDOWN) => {
                    self.went_down(side, LinkState::Down, events.len() - done)?;
                }
                Some(libc::ENXIO | libc::ENODEV) => {
                    self.went_down(side, LinkState::Gone, events.len() - done)?;
                }
                _ => return Err(system_error("send", &self.sides[side].interface.name, error)),
            }
        }
        Ok(())
    }

    /// Does with a frame that was not taken what `--oversize` says, if the MTU has become
    /// smaller since it was read; `unsent` frames come after it.
    fn after_a_smaller_mtu(
        &mut self,
        side: usize,
        event: &Event<Frame>,
        unsent: usize,
    ) -> Result<(), SinkError> {
        let interface = &mut self.sides[side].interface;
        if let Ok(found) = Interface::find_once(&interface.name) {
            interface.mtu = found.mtu;
        }
        if event.item.bytes() <= interface.mtu + ETHERNET_BYTES {
            return Err(self.oversize_error(side, &event.item));
        }
        self.send_oversize(side, event).map_err(|mut error| {
            if let SinkError::NotReady { unsent: waiting, .. } = &mut error {
                *waiting += unsent;
            }
            error
        })
    }

    /// Whether a side can send; `unsent` are the frames that wait for the answer.
    fn is_up(&mut self, side: usize, unsent: usize) -> Result<bool, SinkError> {
        let Side { interface, watch, down, .. } = &mut self.sides[side];
        let look = watch.latest();
        let Some((since, first_look)) = *down else {
            let state = match look.state {
                LinkState::Up if look.index == interface.index => return Ok(true),
                // Made anew between two looks.
                LinkState::Up => LinkState::Gone,
                state => state,
            };
            self.went_down(side, state, unsent)?;
            return Ok(false);
        };
        if look.state != LinkState::Up || look.number < first_look {
            return self.while_down(side, unsent);
        }
        let name = interface.name.clone();
        // What it is may have changed, its number if it was made anew.
        let found = match Interface::find_once(&name) {
            Ok(found) => found,
            Err(SinkError::Down { .. } | SinkError::NoInterface { .. }) => {
                return self.while_down(side, unsent);
            }
            Err(error) => return Err(error),
        };
        let side = &mut self.sides[side];
        if found.index != side.interface.index {
            let fail = |source| system_error(OPEN, &name, source);
            side.port = Port::open(self.options.send_through, &found).map_err(fail)?;
            side.counters = None;
        }
        side.interface = found;
        (side.down, side.back) = (None, true);
        let after = show_duration(since.elapsed().as_secs_f64());
        (self.options.log.0)(&format!("interface `{name}` is up again after {after}"));
        Ok(true)
    }

    /// Notes that a side cannot send any more.
    fn went_down(&mut self, side: usize, state: LinkState, unsent: usize) -> Result<(), SinkError> {
        let Side { interface, watch, down, .. } = &mut self.sides[side];
        let name = &interface.name;
        // A look that has begun may not have seen it yet.
        *down = Some((Instant::now(), watch.latest().number + 2));
        let then = match self.options.on_down {
            OnDown::Abort => return Err(SinkError::Down { name: name.clone(), state }),
            OnDown::Wait => "waiting until it is up again",
            OnDown::Skip => "leaving its packets out until it is up again",
        };
        (self.options.log.0)(&format!("interface `{name}` {state}: {then}"));
        self.while_down(side, unsent).map(|_| ())
    }

    /// What `--on-down` says of frames that cannot be sent.
    fn while_down(&self, side: usize, unsent: usize) -> Result<bool, SinkError> {
        match self.options.on_down {
            OnDown::Skip => Ok(false),
            OnDown::Wait | OnDown::Abort => {
                Err(SinkError::NotReady { name: self.sides[side].interface.name.clone(), unsent })
            }
        }
    }

    fn oversize_error(&self, side: usize, frame: &Frame) -> SinkError {
        let Interface { name, mtu, .. } = &self.sides[side].interface;
        let bytes = frame.len() - ETHERNET_BYTES;
        SinkError::Oversize { name: name.clone(), bytes, mtu: *mtu }
    }

    /// What `--oversize` says of a frame above the MTU.
    fn send_oversize(&mut self, side: usize, event: &Event<Frame>) -> Result<(), SinkError> {
        match self.options.oversize {
            Oversize::Error => return Err(self.oversize_error(side, &event.item)),
            Oversize::Skip => self.sent.oversize_skipped += 1,
            Oversize::Truncate => {
                let mtu = u16::try_from(self.sides[side].interface.mtu).unwrap_or(u16::MAX);
                match event.item.shortened(mtu, &self.options.payload) {
                    Some(item) => {
                        let before = self.sent.records;
                        self.send(side, &[Event { item, ..*event }])?;
                        self.sent.oversize_truncated += self.sent.records - before;
                    }
                    None => self.sent.oversize_skipped += 1,
                }
            }
        }
        Ok(())
    }
}

impl Sink<Frame> for InterfaceSink {
    fn write(&mut self, events: &[Event<Frame>]) -> Result<(), SinkError> {
        self.check_destinations(events)?;
        let mut done = 0;
        while let Some(first) = events.get(done) {
            let side = self.side_of(&first.item);
            let longest = self.sides[side].interface.mtu + ETHERNET_BYTES;
            let run = events[done..].iter().take_while(|event| {
                self.side_of(&event.item) == side && event.item.bytes() <= longest
            });
            let (count, result) = match run.count() {
                0 => (1, self.send_oversize(side, first)),
                count => (count, self.send(side, &events[done..done + count])),
            };
            done += count;
            result.map_err(|mut error| {
                if let SinkError::NotReady { unsent, .. } = &mut error {
                    *unsent += events.len() - done;
                }
                error
            })?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Waits until what was taken has left the system, a second at most.
    fn finish(&mut self) -> Result<(), SinkError> {
        let begin = Instant::now();
        while self.sides.iter().any(Side::has_waiting) && begin.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn sent(&self) -> Sent {
        self.sent
    }

    fn ready(&mut self) -> Result<bool, SinkError> {
        for side in 0..self.sides.len() {
            match self.is_up(side, 0) {
                Ok(true) => {}
                Ok(false) | Err(SinkError::NotReady { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn warm_up(&mut self, next: &Event<Frame>) {
        let side = self.side_of(&next.item);
        let frame = parts(&next.item, &self.tag, &self.options.payload);
        let Side { watch, port, .. } = &self.sides[side];
        std::hint::black_box(watch.latest());
        port.warm_up(frame);
    }

    fn interfaces(&self) -> Vec<InterfaceReport> {
        let report = |side: &Side| {
            let counted = side.counted();
            InterfaceReport {
                name: side.interface.name.clone(),
                sent: side.sent,
                counted: counted.map(|counters| counters.packets),
                lost: counted.map_or(0, |counters| counters.lost()),
            }
        };
        self.sides.iter().map(report).collect()
    }
}

/// A frame as it goes out.
#[inline]
fn parts<'a>(frame: &'a Frame, tag: &'a [u8], payload: &'a Payload) -> Parts<'a> {
    let (addresses, rest) = frame.headers().split_at(ADDRESS_BYTES);
    [addresses, tag, rest, payload.of(frame)]
}

fn back_off(port: &Port, error: &io::Error) {
    if error.raw_os_error() == Some(libc::EAGAIN) {
        port.wait();
    } else {
        // The device's queue is full, of which a socket cannot tell the end.
        std::thread::sleep(Duration::from_micros(20));
    }
}

impl SinkError {
    /// A packet may only go to `allowed`, and this address, one of IPv4 in the lower 32 bits,
    /// is not there.
    pub(crate) fn refused(is_v6: bool, address: u128, allowed: &[Prefix]) -> SinkError {
        let allowed: Vec<String> = allowed.iter().map(|prefix| format!("`{prefix}`")).collect();
        let (destination, allowed) = (address_of(is_v6, address), allowed.join(", "));
        SinkError::Refused { destination, allowed }
    }
}

fn system_error(action: &'static str, name: &str, source: io::Error) -> SinkError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SinkError::Permission { name, source },
        Some(libc::ENETDOWN) => SinkError::Down { name, state: LinkState::Down },
        Some(libc::ENXIO | libc::ENODEV) => SinkError::Down { name, state: LinkState::Gone },
        _ => SinkError::Interface { action, name, source },
    }
}
