//! The exit codes of `ns-replay`.

use crate::error::RuntimeError;
use crate::sink::{LinkState, SinkError};
use crate::stats::Ending;

/// An exit code; the same number always means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the reader of standard output had enough.
    Done = 0,
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line or an input file is wrong, or a packet would go where none may.
    Usage = 2,
    /// No permission to send raw frames.
    Permission = 3,
    /// The interface does not exist, is down, or its MTU is too small; no way to a collector.
    Interface = 4,
    /// Packets that were due did not go out: the interface did not take them in time, was down,
    /// or dropped them; or no collector took them.
    Dropped = 5,
    /// The output could not be written; what is there is whole.
    Output = 7,
    /// Not all that was wanted came: for some flow no draw met the conditions,
    /// or nothing met them at all.
    Conditions = 8,
    /// Stopped by SIGINT, with everything finished.
    Interrupted = 130,
    /// Stopped by SIGTERM, with everything finished.
    Terminated = 143,
}

impl Exit {
    /// The code for an error that a sink reported.
    #[must_use]
    pub fn of_sink(error: &SinkError) -> Exit {
        match error {
            SinkError::Closed => Exit::Done,
            SinkError::Output { .. } | SinkError::Full { .. } => Exit::Output,
            SinkError::Permission { .. } => Exit::Permission,
            SinkError::Refused { .. } => Exit::Usage,
            SinkError::NoInterface { .. }
            | SinkError::NotEthernet { .. }
            | SinkError::Down { .. }
            | SinkError::NotReady { .. }
            | SinkError::Oversize { .. }
            | SinkError::Collector { .. }
            | SinkError::Interface { .. } => Exit::Interface,
        }
    }

    /// The code for an error of generation.
    #[must_use]
    pub fn of_runtime(error: &RuntimeError) -> Exit {
        match error {
            RuntimeError::Bundle(_)
            | RuntimeError::Graph { .. }
            | RuntimeError::Unsupported { .. }
            | RuntimeError::Condition(_)
            | RuntimeError::Option { .. } => Exit::Usage,
            RuntimeError::NothingMatches { .. } => Exit::Conditions,
            _ => Exit::Failed,
        }
    }

    /// The code for a run without errors that lost so many packets.
    #[must_use]
    pub fn of_ending(ending: Ending, lost: u64, conditions_unmet: bool) -> Exit {
        match ending {
            Ending::Interrupted => Exit::Interrupted,
            Ending::Terminated => Exit::Terminated,
            Ending::Failed => Exit::Failed,
            Ending::Done if lost > 0 => Exit::Dropped,
            Ending::Done if conditions_unmet => Exit::Conditions,
            Ending::Done | Ending::Closed => Exit::Done,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(exit as u8)
    }
}

/// What sets up interfaces here.
const CONFIGURE: &str = if cfg!(target_os = "linux") { "ip link set" } else { "ifconfig" };

/// What a person can do about an error of a sink.
#[must_use]
pub fn sink_hint(error: &SinkError) -> Option<String> {
    match error {
        SinkError::Permission { .. } if cfg!(target_os = "linux") => Some(
            "`sudo setcap cap_net_raw=ep $(command -v ns-replay)` allows it without root"
                .to_owned(),
        ),
        SinkError::Permission { .. } => Some(
            "it needs root, or a user who may read and write the devices `/dev/bpf*`".to_owned(),
        ),
        SinkError::Down { name, state: LinkState::Down } => {
            Some(format!("`{CONFIGURE} {name} up` brings it up"))
        }
        SinkError::Oversize { name, bytes, .. } => Some(format!(
            "`{CONFIGURE} {name} mtu {bytes}` makes room; `--oversize skip` leaves such packets \
             out, `--oversize truncate` shortens them"
        )),
        SinkError::Refused { destination, .. } => Some(format!(
            "`--map {}=PREFIX` moves all addresses into a network that is allowed",
            if destination.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
        )),
        _ => None,
    }
}
