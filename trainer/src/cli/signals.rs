//! Ctrl-C: what has been done so far is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use ns_runtime::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

/// The signal that asks to stop, once there is one.
#[derive(Debug)]
pub(super) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Listens from now on: the first SIGINT or SIGTERM is taken note of, a
    /// second one ends the process at once.
    pub(super) fn listen() -> anyhow::Result<Signals> {
        let stopped_by = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        let listen = || -> std::io::Result<()> {
            for signal in [SIGINT, SIGTERM] {
                // Handlers run in the order of registration: on the first signal the flag is not
                // set yet.
                let code = 128 + signal;
                signal_hook::flag::register_conditional_shutdown(signal, code, again.clone())?;
                signal_hook::flag::register(signal, again.clone())?;
                signal_hook::flag::register_usize(signal, stopped_by.clone(), signal as usize)?;
            }
            // A file at the limit of its size is an error of the write, not a signal's death.
            signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
        };
        listen().context("cannot listen for Ctrl-C")?;
        Ok(Signals(stopped_by))
    }

    /// Whether nobody has asked to stop.
    pub(super) fn go_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// The exit code of a run without errors.
    pub(super) fn exit(&self) -> Exit {
        match self.0.load(Ordering::Relaxed) as i32 {
            SIGINT => Exit::Interrupted,
            SIGTERM => Exit::Terminated,
            _ => Exit::Done,
        }
    }
}
