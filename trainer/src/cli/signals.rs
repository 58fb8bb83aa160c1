//! Ctrl-C: what has been done so far is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use ns_runtime::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};

/// The signal that asks to stop, once there is one.
#[derive(Debug)]
pub(super) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Listens from now on, as [`ns_runtime::signals`] does.
    pub(super) fn listen() -> anyhow::Result<Signals> {
        let stopped_by = Arc::new(AtomicUsize::new(0));
        ns_runtime::signals::listen(stopped_by.clone()).context("cannot listen for Ctrl-C")?;
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
