//! SIGINT and SIGTERM, for programs: the first asks to stop, a later one ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Signals that come so soon after the first are the same request: `timeout` sends its signal to
/// the program and then to its process group, so that the program has it twice within
/// microseconds, and a service manager's SIGTERM may come on top of a terminal's SIGINT.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Listens from now on, in a thread of its own: the number of the first SIGINT or SIGTERM is
/// stored in `stop`. One that comes half a second later or more ends the process at once, with 128
/// and its number as the exit code.
///
/// # Errors
/// The system refuses handlers or the thread.
pub fn listen(stop: Arc<AtomicUsize>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    // A file at the limit of its size is an error of the write, not a signal's death.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let follow = move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            match first {
                None => {
                    first = Some(Instant::now());
                    stop.store(signal as usize, Ordering::Relaxed);
                }
                Some(first) if first.elapsed() < SAME_REQUEST => {}
                Some(_) => signal_hook::low_level::exit(128 + signal),
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(follow).map(drop)
}
