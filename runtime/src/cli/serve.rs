//! Who may ask a run how it is, and tell it what to do: monitoring over HTTP (`--metrics`), and
//! a Unix socket (`--control`).
//!
//! Both are answered by threads of their own, one client at a time, each with little time and
//! little room, so that nobody can hold up or fill up a run.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::live::{LATENESS_BOUNDS_NS, Live, Snapshot};
use super::parse_rate;
use crate::pace::Pace;

/// How often it is seen that somebody asks.
const POLL: Duration = Duration::from_millis(20);
/// How long a request over HTTP may take.
const REQUEST: Duration = Duration::from_secs(2);
/// How long a client of the socket may say nothing.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest request, and longest line.
const MOST_REQUEST: usize = 4096;
const MOST_LINE: usize = 256;

/// A thread that answers, until this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Removed at the end.
    socket: Option<PathBuf>,
}

impl Server {
    fn start(
        mut answer_one: impl FnMut(&AtomicBool) -> io::Result<()> + Send + 'static,
        socket: Option<PathBuf>,
    ) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                // Whatever went wrong, it is the client's loss: the next one is waited for.
                if answer_one(&asked).is_err() {
                    std::thread::park_timeout(POLL);
                }
            }
        });
        Server { stop, thread: Some(thread), socket }
    }

    /// Answers `GET /metrics` in the text format of Prometheus.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub(super) fn metrics(address: SocketAddr, live: Arc<Live>) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Server::start(move |_| answer_http(listener.accept()?.0, &live), None))
    }

    /// Takes commands, a line each, at a socket that only this user may write to.
    ///
    /// # Errors
    /// The socket cannot be made, or something else has its name.
    pub(super) fn control(path: &Path, live: Arc<Live>) -> io::Result<Server> {
        remove_if_stale(path)?;
        let listener = bind_private(path)?;
        listener.set_nonblocking(true)?;
        let answer = move |stop: &AtomicBool| converse(listener.accept()?.0, &live, stop);
        Ok(Server::start(answer, Some(path.to_owned())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Clients are no part of the run.
            let _ = thread.join();
        }
        if let Some(path) = &self.socket {
            // If it is gone already, so be it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the socket of a run that was killed: one where nobody listens.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// A socket of mode 0600 from its first moment.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    #[allow(unsafe_code)]
    // SAFETY: umask takes and returns numbers. It is the whole process's, but whatever else
    // makes a file in this moment gets one with fewer rights, not more.
    let before = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(path);
    #[allow(unsafe_code)]
    // SAFETY: as above.
    unsafe {
        libc::umask(before);
    }
    listener
}

fn answer_http(mut client: TcpStream, live: &Live) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(REQUEST))?;
    let begin = Instant::now();
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !ends_headers(&request) && request.len() <= MOST_REQUEST {
        let left = REQUEST.checked_sub(begin.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
        client.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match client.read(&mut part)? {
            0 => break,
            count => request.extend_from_slice(&part[..count]),
        }
    }
    let (status, body) = respond(&request, || metrics(&live.snapshot()));
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(response.as_bytes())
}

fn ends_headers(request: &[u8]) -> bool {
    request.windows(4).any(|four| four == b"\r\n\r\n")
        || request.windows(2).any(|two| two == b"\n\n")
}

/// The status and the body for a request (RFC 9112).
fn respond(request: &[u8], metrics: impl FnOnce() -> String) -> (&'static str, String) {
    if request.len() > MOST_REQUEST {
        return ("431 Request Header Fields Too Large", String::new());
    }
    let line = request.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [method, path, version] if version.starts_with(b"HTTP/1.") && ends_headers(request) => {
            let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
            match (method, path) {
                (b"GET", b"/metrics") => ("200 OK", metrics()),
                (b"GET", _) => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
                _ => ("405 Method Not Allowed", String::new()),
            }
        }
        _ => ("400 Bad Request", String::new()),
    }
}

/// The text format, version 0.0.4.
fn metrics(now: &Snapshot) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, f64)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP netshare_{name} {help}\n# TYPE netshare_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "netshare_{name}{labels} {value}");
        }
    };
    let counters = [
        ("packets_total", "Packets that the interfaces took.", now.packets),
        ("bytes_total", "Bytes of these packets' frames.", now.bytes),
        ("flows_total", "Flows whose first packet is among them.", now.flows),
        ("truncated_packets_total", "Packets shortened to the MTU.", now.oversize_truncated),
        ("refused_datagrams_total", "Datagrams that came where nobody listened.", now.refused),
    ];
    for (name, help, value) in counters {
        metric(name, "counter", help, &[("", value as f64)]);
    }
    let dropped = [
        ("{cause=\"queue_full\"}", now.dropped.queue_full as f64),
        ("{cause=\"interface_down\"}", now.dropped.interface_down as f64),
        ("{cause=\"over_mtu\"}", now.dropped.over_mtu as f64),
    ];
    metric("dropped_packets_total", "counter", "Packets that did not go out.", &dropped);
    let [starved, blocked, woken] = now.late_by_cause.map(|count| count as f64);
    let late = [
        ("{cause=\"generator_starved\"}", starved),
        ("{cause=\"send_blocked\"}", blocked),
        ("{cause=\"woken_late\"}", woken),
    ];
    metric("late_packets_total", "counter", "Packets more than 100 us late.", &late);
    metric("run_seconds", "gauge", "Time since the run began.", &[("", now.elapsed_s)]);
    metric("paused", "gauge", "Whether the run is paused.", &[("", now.paused.into())]);
    let (counts, all, sum_ns) = &now.late;
    let name = "netshare_lateness_seconds";
    let _ = writeln!(text, "# HELP {name} How late paced packets went out.");
    let _ = writeln!(text, "# TYPE {name} histogram");
    for (bound, count) in LATENESS_BOUNDS_NS.iter().zip(counts) {
        let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {count}", *bound as f64 / 1e9);
    }
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {all}");
    let _ = writeln!(text, "{name}_sum {}\n{name}_count {all}", sum_ns / 1e9);
    text
}

/// Commands, a line each, and an answer to each.
fn converse(mut client: UnixStream, live: &Live, stop: &AtomicBool) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(REQUEST))?;
    client.set_read_timeout(Some(POLL))?;
    let mut pending = Vec::new();
    let mut part = [0; MOST_LINE];
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) && heard.elapsed() < SILENCE {
        let count = match client.read(&mut part) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        heard = Instant::now();
        for &byte in &part[..count] {
            if byte != b'\n' {
                pending.push(byte);
                if pending.len() > MOST_LINE {
                    let answer = answer(Err(format!("a line has {MOST_LINE} bytes at most")));
                    return client.write_all(answer.as_bytes());
                }
                continue;
            }
            let line = String::from_utf8_lossy(&pending).trim().to_owned();
            pending.clear();
            client.write_all(answer(obey(&line, live)).as_bytes())?;
        }
    }
    Ok(())
}

fn obey(line: &str, live: &Live) -> Result<Snapshot, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pace = |kind: fn(f64) -> Pace, rate: &str| -> Result<(), String> {
        live.control.set_pace(kind(parse_rate(rate)?));
        Ok(())
    };
    match words[..] {
        ["status"] => {}
        ["pause"] => live.control.pause(),
        ["resume"] => live.control.resume(),
        ["topspeed"] => live.control.set_pace(Pace::TopSpeed),
        ["speed", rate] => pace(Pace::Speed, rate)?,
        ["pps", rate] => pace(Pace::PacketsPerSecond, rate)?,
        ["mbps", rate] => pace(Pace::MegabitsPerSecond, rate)?,
        _ => {
            return Err("expected `status`, `pause`, `resume`, `speed FACTOR`, `pps N`, `mbps N` \
                        or `topspeed`"
                .to_owned());
        }
    }
    Ok(live.snapshot())
}

fn answer(result: Result<Snapshot, String>) -> String {
    let text = match result {
        Ok(snapshot) => serde_json::to_string(&snapshot),
        Err(error) => serde_json::to_string(&serde_json::json!({ "error": error })),
    };
    // Numbers and short words: there is always a text.
    text.unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Control;

    #[test]
    fn only_one_request_is_answered() {
        let respond = |request: &[u8]| respond(request, || "all".to_owned());
        assert_eq!(
            respond(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("200 OK", "all".to_owned())
        );
        assert_eq!(respond(b"GET /metrics?a=b HTTP/1.0\n\n").0, "200 OK");
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics HTTP/1.1\r\n", "400"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"\x00\xff\r\n\r\n", "400"),
            (b"", "400"),
            (&[b'a'; MOST_REQUEST + 1], "431"),
        ] {
            assert!(respond(request).0.starts_with(status), "{request:?}");
        }
    }

    #[test]
    fn a_client_that_says_too_much_or_too_little_is_left() {
        let live = Arc::new(Live::new(Arc::new(Control::default())));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = std::thread::spawn(move || {
            let accepted = || listener.accept().unwrap().0;
            (answer_http(accepted(), &live), answer_http(accepted(), &live))
        });
        let mut silent = TcpStream::connect(address).unwrap();
        assert_eq!(silent.read(&mut [0; 9]).unwrap(), 0);
        let mut talker = TcpStream::connect(address).unwrap();
        talker.write_all(&[b'a'; MOST_REQUEST + 1]).unwrap();
        let mut text = [0; 12];
        talker.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"HTTP/1.1 431");
        let (first, second) = answer.join().unwrap();
        assert!(first.is_err() && second.is_ok());
    }

    #[test]
    fn commands_change_the_run_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let control = Arc::new(Control::default());
        let live = Arc::new(Live::new(control.clone()));
        let server = Server::control(&path, live.clone()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        // Somebody else's socket is not taken away.
        assert!(Server::control(&path, live.clone()).is_err());
        let mut client = UnixStream::connect(&path).unwrap();
        let mut ask = |line: &str| {
            client.write_all(line.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let mut byte = [0];
            while client.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
                answer.push(byte[0]);
            }
            serde_json::from_slice::<serde_json::Value>(&answer).unwrap()
        };
        assert_eq!(ask("pause\n")["paused"], true);
        assert!(control.is_paused());
        assert_eq!(ask("resume\n")["paused"], false);
        assert_eq!(ask("pps 100\n")["packets"], 0);
        for wrong in ["pps\n", "pps -1\n", "speed nan\n", "rm -rf\n", "\n", "\u{7}\n"] {
            assert!(ask(wrong)["error"].is_string(), "{wrong}");
        }
        assert!(ask(&("x".repeat(MOST_LINE + 1)))["error"].is_string());
        drop(server);
        assert!(!path.exists());
        // One that a killed run has left is.
        drop(UnixListener::bind(&path).unwrap());
        drop(Server::control(&path, live.clone()).unwrap());
        std::fs::write(&path, "a file").unwrap();
        assert!(Server::control(&path, live).is_err());
    }
}
