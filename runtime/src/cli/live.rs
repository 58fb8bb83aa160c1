//! What is told of a run while it goes on: on a terminal, as JSON lines, to whoever asks.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use super::Cli;
use crate::drive::Control;
use crate::pace::{Lateness, LatenessSummary};
use crate::sink::{Log, Sent};
use crate::stats::{grouped, scaled};

/// How often a run is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Bounds of the lateness that is told to monitoring.
pub(super) const LATENESS_BOUNDS_NS: [u64; 10] = [
    1_000,
    3_000,
    10_000,
    30_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// Standard error, with a line that changes where it is a terminal.
#[derive(Clone, Debug)]
pub(super) struct Terminal(Option<ProgressBar>);

impl Terminal {
    pub(super) fn new(cli: &Cli) -> Terminal {
        let shown = !cli.quiet && !cli.no_progress && std::io::stderr().is_terminal();
        Terminal(shown.then(ProgressBar::new_spinner))
    }

    /// Prints lines above the one that changes.
    pub(super) fn log(&self) -> Log {
        let bar = self.0.clone();
        Log(Arc::new(move |line| match &bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }))
    }
}

/// Standard error may be closed; the run goes on.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What a run has done, and what it did in the last second.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Snapshot {
    /// Since the run began.
    pub(super) elapsed_s: f64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) flows: u64,
    pub(super) packets_per_s: f64,
    pub(super) bits_per_s: f64,
    pub(super) flows_per_s: f64,
    pub(super) dropped: Dropped,
    pub(super) oversize_truncated: u64,
    /// Datagrams of flow records that came where nobody listened.
    pub(super) refused: u64,
    /// Of the last second.
    pub(super) lateness: Option<LatenessSummary>,
    pub(super) paused: bool,
    /// Of the whole run: how many at most so late as each of the bounds, how many, their sum.
    #[serde(skip)]
    pub(super) late: (Vec<u64>, u64, f64),
    /// Of the whole run.
    #[serde(skip)]
    pub(super) late_by_cause: [u64; 3],
}

/// Packets that did not go out, by cause.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Dropped {
    /// The interface did not take them in time.
    pub(super) queue_full: u64,
    /// The interface was down.
    pub(super) interface_down: u64,
    /// Longer than the MTU.
    pub(super) over_mtu: u64,
}

impl Snapshot {
    fn to_line(&self, noun: &str) -> String {
        let mut line = format!(
            "{} {noun}, {}/s, {}bit/s, {} flows",
            grouped(self.packets),
            scaled(self.packets_per_s),
            scaled(self.bits_per_s),
            grouped(self.flows),
        );
        if let Some(late) = &self.lateness {
            line += &format!(", late by {:.1} us (99%: {:.1} us)", late.median_us, late.p99_us);
        }
        let Dropped { queue_full, interface_down, over_mtu } = self.dropped;
        match queue_full + interface_down + over_mtu {
            0 => {}
            dropped => line += &format!(", {} dropped", grouped(dropped)),
        }
        if self.refused > 0 {
            line += &format!(", {} datagrams refused", grouped(self.refused));
        }
        if self.paused {
            line += ", paused";
        }
        line
    }
}

/// One line of `--json`.
#[derive(Serialize)]
pub(super) struct JsonLine<'a, T> {
    pub(super) event: &'static str,
    #[serde(flatten)]
    pub(super) of: &'a T,
}

/// What is known of a run, for whoever asks.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) control: Arc<Control>,
    begin: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    snapshot: Snapshot,
    at: Instant,
    sent: Sent,
    /// Of the run until then.
    lateness: Lateness,
}

impl Live {
    pub(super) fn new(control: Arc<Control>) -> Live {
        let begin = Instant::now();
        let seen = Seen {
            snapshot: Snapshot::default(),
            at: begin,
            sent: Sent::default(),
            lateness: Lateness::default(),
        };
        Live { control, begin, seen: Mutex::new(seen) }
    }

    /// What was seen last, at most a second ago.
    pub(super) fn snapshot(&self) -> Snapshot {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot { paused: self.control.is_paused(), ..seen.snapshot.clone() }
    }

    fn look(&self) -> Snapshot {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let late = self.control.take_lateness(Lateness::default());
        let (now, sent) = (Instant::now(), self.control.sent());
        let seconds = (now - seen.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        seen.lateness.add(&late);
        let total = seen.lateness.summary();
        let snapshot = Snapshot {
            elapsed_s: (now - self.begin).as_secs_f64(),
            packets: sent.records,
            bytes: sent.bytes,
            flows: sent.flows,
            packets_per_s: rate(sent.records, seen.sent.records),
            bits_per_s: 8.0 * rate(sent.bytes, seen.sent.bytes),
            flows_per_s: rate(sent.flows, seen.sent.flows),
            dropped: Dropped {
                queue_full: sent.dropped,
                interface_down: sent.down_skipped,
                over_mtu: sent.oversize_skipped,
            },
            oversize_truncated: sent.oversize_truncated,
            refused: sent.refused,
            lateness: late.summary(),
            paused: self.control.is_paused(),
            late: seen.lateness.cumulative(&LATENESS_BOUNDS_NS),
            late_by_cause: total
                .map_or([0; 3], |late| [late.starved, late.blocked, late.woken_late]),
        };
        (seen.at, seen.sent, seen.snapshot) = (now, sent, snapshot.clone());
        snapshot
    }
}

/// A thread that looks at a run every second, and shows it.
#[derive(Debug)]
pub(super) struct Monitor {
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Monitor {
    /// Begins to look; with `json` each look is a line on standard output.
    pub(super) fn start(
        live: &Arc<Live>,
        terminal: &Terminal,
        json: bool,
        noun: &'static str,
    ) -> Monitor {
        let (live, stop) = (live.clone(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (live, stop, bar) = (live.clone(), stop.clone(), terminal.0.clone());
            move || {
                let mut next = Instant::now() + EVERY;
                while !stop.load(Ordering::Relaxed) {
                    let now = Instant::now();
                    if now < next {
                        std::thread::park_timeout(next - now);
                        continue;
                    }
                    next += EVERY;
                    let snapshot = live.look();
                    if json {
                        print_line(&JsonLine { event: "progress", of: &snapshot });
                    }
                    if let Some(bar) = &bar {
                        bar.set_message(snapshot.to_line(noun));
                        bar.tick();
                    }
                }
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            }
        });
        Monitor { live, stop, thread }
    }

    /// Ends it; returns how late records were until it looked last.
    pub(super) fn stop(self) -> Lateness {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // Nothing of the run hangs on what was shown of it.
        let _ = self.thread.join();
        let mut seen = self.live.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut seen.lateness)
    }
}

/// Writes one line of `--json`. A reader that has gone ends nothing that is on a wire.
pub(super) fn print_line(line: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(line) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}
