//! From a parsed command line to an exit code.

use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use ns_model_format::Bundle;
use ns_model_format::schema::TraceKind;
use serde::Serialize;

use super::Cli;
use super::live::{JsonLine, Live, Monitor, Terminal, print_line};
use super::serve::Server;
use super::wire::{self, WirePlan};
use crate::describe::{Description, show_time};
use crate::drive::{Control, DriveError, Driven, Limits, Timing, drive};
use crate::error::RuntimeError;
use crate::exit::{Exit, sink_hint};
use crate::flow_records::FlowRecordRender;
use crate::generate::{GenerateOptions, Generator, StatsReader};
use crate::given::GivenFlows;
use crate::pace::{Pace, show_duration};
use crate::packets::{
    DEFAULT_DESTINATION, DEFAULT_SOURCE, Frame, LabelledFrame, LabelledRender, PacketOptions,
    PacketRender, Payload,
};
use crate::prefix::AddressMap;
use crate::render::Render;
use crate::rows::RowRender;
use crate::signals;
use crate::sink::{
    CsvFormat, ExportFormat, ExportSink, FileSink, FlowNotes, FlowRender, FlowSink, Item, NullSink,
    PcapFormat, PcapngFormat, Sink, SinkError, Target,
};
use crate::stats::{Ending, Report, SelectionReport, grouped};

/// The generator is to be ahead of the sender by so many seconds of what is usual, ...
const SECONDS_AHEAD: f64 = 4.0 * 0.2;
/// ... within these numbers of records.
const LEAST_AHEAD: usize = 1 << 14;
const MOST_AHEAD: usize = 1 << 18;
/// Bytes of a frame where it matters how many packets are in a million bits.
const USUAL_BYTES: f64 = 500.0;

/// An error with what the program ends with, and what can be done about it.
pub(super) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn usage(error: impl Into<anyhow::Error>, hint: Option<&str>) -> Failure {
        Failure { exit: Exit::Usage, error: error.into(), hint: hint.map(str::to_owned) }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Failure {
        let (exit, hint) = (Exit::of_sink(&error), sink_hint(&error));
        Failure { exit, error: error.into(), hint }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        let (exit, hint) = (Exit::of_runtime(&error), error.hint().map(str::to_owned));
        Failure { exit, error: error.into(), hint }
    }
}

impl From<DriveError<RuntimeError>> for Failure {
    fn from(error: DriveError<RuntimeError>) -> Failure {
        match error {
            DriveError::Sink(error) => error.into(),
            DriveError::Generate(error) => {
                let Failure { exit, error, hint } = error.into();
                Failure { exit, error: error.context("cannot generate"), hint }
            }
        }
    }
}

/// Runs `ns-replay` on the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = run(&cli).unwrap_or_else(|Failure { exit, error, hint }| {
        // Standard error may be closed; the exit code still says what happened.
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "error: {error:#}");
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        exit
    });
    exit.into()
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let to_stdout = |target: Option<&Target>| target == Some(&Target::Stdout);
    let on_stdout = [cli.json, to_stdout(cli.file()), to_stdout(cli.flows_out.as_ref())];
    if on_stdout.iter().filter(|&&wanted| wanted).count() > 1 {
        let error = anyhow::anyhow!("`--json` and `-`, or `-` twice, all want standard output");
        return Err(Failure::usage(error, None));
    }
    if to_stdout(cli.file()) && !cli.rotation().is_none() {
        let error = anyhow::anyhow!("standard output cannot be several files");
        return Err(Failure::usage(error, Some("`--rotate-size` and `--rotate-time` need a name")));
    }
    if cli.file().is_some() && cli.file() == cli.flows_out.as_ref() {
        let error = anyhow::anyhow!("`--flows-out` names the file that packets or rows go to");
        return Err(Failure::usage(error, None));
    }
    let bundle = Bundle::open(&cli.bundle)
        .with_context(|| format!("cannot use bundle `{}`", cli.bundle.display()))
        .map_err(|error| Failure::usage(error, None))?;
    if cli.describe {
        let description = Description::new(&bundle);
        return print(cli.json, &description, || description.to_text());
    }
    let plan = Plan::new(cli, bundle)?;
    if let Some((collector, format)) = cli.collector() {
        return plan.export(collector, format);
    }
    if plan.is_packets && cli.csv.is_none() {
        if !cli.iface.is_empty() {
            return wire::run(plan);
        }
        let options = plan.packets.clone();
        let (payload, snaplen) = (options.payload.clone(), cli.snaplen);
        let origin_ns = plan.origin_ns;
        if let (Some(target), false) = (&cli.pcapng, cli.dry_run) {
            let format = PcapngFormat { payload, snaplen, origin_ns };
            let packets = plan.packet_render(options)?;
            return match LabelledRender::new(&packets) {
                Some(render) => {
                    let mut sink =
                        FileSink::rotating::<LabelledFrame>(target, format, cli.rotation())?;
                    plan.run(render, &mut sink)
                }
                None => {
                    let mut sink = FileSink::rotating::<Frame>(target, format, cli.rotation())?;
                    plan.run(packets, &mut sink)
                }
            };
        }
        if let (Some(target), false) = (&cli.pcap, cli.dry_run) {
            let nanoseconds = cli.nanoseconds;
            let format = PcapFormat { payload, snaplen, origin_ns, nanoseconds };
            let mut sink = FileSink::rotating::<Frame>(target, format, cli.rotation())?;
            return plan.play(options, &mut sink);
        }
        return plan.play(options, &mut NullSink::new());
    }
    if cli.pcap.is_some() || cli.pcapng.is_some() || !cli.iface.is_empty() {
        let error = PacketRender::new(&plan.bundle.manifest().schema, PacketOptions::default())
            .err()
            .map_or_else(|| anyhow::anyhow!("no packets"), anyhow::Error::from);
        return Err(Failure::usage(error, Some("`--csv FILE` writes what it holds")));
    }
    let render = RowRender::new(&plan.bundle.manifest().schema, plan.origin_ns);
    match &cli.csv {
        Some(target) if !cli.dry_run => {
            let format = CsvFormat { header: render.header() };
            let mut sink = FileSink::rotating::<Box<str>>(target, format, cli.rotation())?;
            plan.run(render, &mut sink)
        }
        _ => plan.run(render, &mut NullSink::new()),
    }
}

/// Writes to standard error, which may be closed; the run goes on.
fn tell(text: &str) {
    let _ = write!(std::io::stderr().lock(), "{text}");
}

/// Everything that is decided before a run begins.
pub(super) struct Plan<'a> {
    pub(super) cli: &'a Cli,
    pub(super) bundle: Arc<Bundle>,
    is_packets: bool,
    seed: u64,
    origin_ns: i64,
    pace: Pace,
    pub(super) packets: PacketOptions,
    pub(super) generate: GenerateOptions,
    pub(super) limits: Limits,
    pub(super) terminal: Terminal,
}

/// What `--dry-run` says.
#[derive(Serialize)]
struct DryRun {
    bundle: String,
    target: String,
    how_much: String,
    which: String,
    pace: String,
    begins: String,
    /// As trained.
    flows_per_s: f64,
    records_per_s: f64,
    flow_rate: String,
    /// At the flow rate that stays.
    resulting_flows_per_s: f64,
    seed: u64,
    #[serde(flatten)]
    wire: Option<WirePlan>,
}

impl<'a> Plan<'a> {
    fn new(cli: &'a Cli, bundle: Bundle) -> Result<Plan<'a>, Failure> {
        let seed = cli.seed.unwrap_or_else(random_seed);
        let payload = match cli.payload.as_str() {
            "quiet" => Payload::quiet(),
            "zero" => Payload::zero(),
            "random" => Payload::random(seed),
            file => Payload::from_file(Path::new(file))
                .context("cannot use `--payload`")
                .map_err(|error| Failure::usage(error, None))?,
        };
        let pace = match (cli.speed, cli.pps, cli.mbps) {
            (Some(speed), _, _) => Pace::Speed(speed),
            (_, Some(rate), _) => Pace::PacketsPerSecond(rate),
            (_, _, Some(rate)) => Pace::MegabitsPerSecond(rate),
            _ if cli.is_live() && !cli.topspeed => Pace::Speed(1.0),
            _ => Pace::TopSpeed,
        };
        // Where the trace's time is not the clock's, an interface is used for
        // so long by the clock.
        let by_clock = cli.is_live() && !matches!(pace, Pace::Speed(_));
        let mut duration = cli.duration;
        if let (Some(time), Pace::Speed(speed), true) = (duration, pace, cli.is_live()) {
            duration = Duration::try_from_secs_f64(time.as_secs_f64() * speed).ok();
        }
        let duration_ns = duration
            .filter(|_| !by_clock)
            .map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let endless = cli.forever || cli.packets.is_some() || cli.is_live();
        let attributes = read_attributes(cli, &bundle)?;
        let given_origin = attributes.as_ref().and_then(|given| given.origin_ns());
        let generate = GenerateOptions {
            seed,
            conditions: cli.conditions.clone(),
            condition_tries: cli.where_tries,
            attributes,
            threads: cli.threads.into(),
            slots: cli.slots as usize,
            queue_cap: cli.queue_cap as usize,
            flows: cli.flows,
            flow_rate: cli.flow_rate.or(cli.ramp).unwrap_or(1.0.into()),
            duration_ns,
            forever: endless && cli.flows.is_none() && duration_ns.is_none(),
            onnxruntime: cli.onnxruntime.clone(),
            device: cli.device,
            ..GenerateOptions::default()
        };
        let packets = PacketOptions {
            seed,
            source: cli.src_mac.unwrap_or(DEFAULT_SOURCE),
            destination: cli.dst_mac.unwrap_or(DEFAULT_DESTINATION),
            payload,
            map: AddressMap(cli.map.clone()),
        };
        generate.check_against(&bundle)?;
        let manifest = bundle.manifest();
        Ok(Plan {
            cli,
            is_packets: manifest.schema.kind == TraceKind::Packets,
            seed,
            origin_ns: cli.start_time.or(given_origin).unwrap_or_else(|| {
                // A collector files flows under their time.
                let now = cli.collector().and_then(|_| super::parse_time("now").ok());
                now.unwrap_or(manifest.timeline.origin_ns)
            }),
            pace,
            packets,
            generate,
            limits: Limits { records: cli.packets, wall: cli.duration.filter(|_| by_clock) },
            terminal: Terminal::new(cli),
            bundle: Arc::new(bundle),
        })
    }

    pub(super) fn play(
        self,
        options: PacketOptions,
        sink: &mut dyn Sink<Frame>,
    ) -> Result<Exit, Failure> {
        let render = self.packet_render(options)?;
        self.run(render, sink)
    }

    fn packet_render(&self, options: PacketOptions) -> Result<PacketRender, Failure> {
        PacketRender::new(&self.bundle.manifest().schema, options)
            .map_err(|error| Failure::usage(error, None))
    }

    /// Sends flow records to a collector.
    fn export(self, collector: SocketAddr, format: ExportFormat) -> Result<Exit, Failure> {
        let map = AddressMap(self.cli.map.clone());
        let hint = if self.is_packets {
            "flow records come from a bundle of a NetFlow-like table; for packets there are \
             `--iface NAME` and `--pcap FILE`, and `--flows-out FILE` beside them for their flows"
        } else {
            "flow records come from a bundle of a NetFlow-like table; `--csv FILE` writes what \
             this one holds"
        };
        let render = FlowRecordRender::new(&self.bundle.manifest().schema, map)
            .map_err(|error| Failure::usage(error, Some(hint)))?;
        let mut sink = ExportSink::open(collector, format, self.origin_ns)?;
        self.run(render, &mut sink)
    }

    fn run<R>(self, render: R, sink: &mut dyn Sink<R::Item>) -> Result<Exit, Failure>
    where
        R: Render,
        R::Item: Item,
    {
        if self.cli.dry_run {
            return self.dry_run(None);
        }
        let Some(target) = &self.cli.flows_out else {
            return self.go(FlowRender::new(render, None), sink);
        };
        let (notes, schema) = (FlowNotes::default(), &self.bundle.manifest().schema);
        let mut sink = FlowSink::create(target, schema, self.origin_ns, notes.clone(), sink)?;
        self.go(FlowRender::new(render, Some(notes)), &mut sink)
    }

    fn go<R>(&self, render: R, sink: &mut dyn Sink<R::Item>) -> Result<Exit, Failure>
    where
        R: Render,
        R::Item: Item,
    {
        let cli = self.cli;
        if cli.verbose {
            tell(&self.describe_run().to_text());
        } else if !cli.quiet && cli.is_live() {
            // An endless run reports at its end; its seed should be known before.
            tell(&format!("sending to {}, seed {}\n", self.target(), self.seed));
        }
        let control = Arc::new(Control::default());
        signals::listen(Arc::clone(&control.stop))
            .context("cannot listen to signals")
            .map_err(|error| Failure { exit: Exit::Failed, error, hint: None })?;
        let events =
            Generator::open(Arc::clone(&self.bundle), self.generate.clone())?.stream(render)?;
        let stats = events.stats_reader();
        let live = Arc::new(Live::new(control.clone()));
        let servers = self.serve(&live)?;
        let lines = cli.json && cli.is_live();
        let monitor = Monitor::start(&live, &self.terminal, lines, self.noun());
        let threaded = cli.is_live() || self.pace != Pace::TopSpeed;
        let timing = Timing { pace: self.pace, pacing: cli.pacing, ahead: self.ahead() };
        let (mut driven, result) = drive(events, sink, timing, threaded, self.limits, &control);
        driven.lateness.add(&monitor.stop());
        drop(servers);
        self.report(driven, result, &stats)
    }

    /// Records that the generator may be ahead.
    fn ahead(&self) -> usize {
        let timeline = &self.bundle.manifest().timeline;
        let density =
            timeline.records as f64 / (timeline.arrivals.span_ns() as f64 / 1e9).max(1e-9);
        let rate = match self.pace {
            // Records come in bursts, since they are ready when no flow can have an earlier one: with
            // little room the generator waits for the sender in one and the sender for the next.
            Pace::TopSpeed => return MOST_AHEAD,
            Pace::Speed(speed) => {
                let (from, to) = self.generate.flow_rate.ends();
                density * speed * from.max(to)
            }
            Pace::PacketsPerSecond(rate) => rate,
            Pace::MegabitsPerSecond(rate) => rate * 1e6 / (8.0 * USUAL_BYTES),
        };
        ((SECONDS_AHEAD * rate) as usize).clamp(LEAST_AHEAD, MOST_AHEAD)
    }

    /// Answers whoever may ask how the run is.
    fn serve(&self, live: &Arc<Live>) -> Result<Vec<Server>, Failure> {
        let mut servers = Vec::new();
        if let Some(address) = self.cli.metrics {
            let server = Server::metrics(address, live.clone())
                .with_context(|| format!("cannot listen at `{address}` for `--metrics`"))
                .map_err(|error| Failure::usage(error, None))?;
            servers.push(server);
        }
        if let Some(path) = &self.cli.control {
            let server = Server::control(path, live.clone())
                .with_context(|| format!("cannot make the socket `{}`", path.display()))
                .map_err(|error| Failure::usage(error, None))?;
            servers.push(server);
        }
        Ok(servers)
    }

    fn report(
        &self,
        driven: Driven,
        result: Result<(), DriveError<RuntimeError>>,
        stats: &StatsReader,
    ) -> Result<Exit, Failure> {
        let cli = self.cli;
        let mut report = Report::new(&driven, self.seed, self.target(), self.noun());
        report.mixed_versions = stats.read().mixed_versions;
        if !cli.conditions.is_empty() {
            let conditions = cli.conditions.iter().map(ToString::to_string).collect();
            report.selection = Some(SelectionReport::new(conditions, &stats.read()));
        }
        if !cli.quiet && driven.ending != Ending::Closed {
            tell(&report.to_text());
        }
        if cli.json && cli.is_live() {
            print_line(&JsonLine { event: "report", of: &report });
        } else if cli.json {
            print(true, &report, String::new)?;
        }
        result?;
        Ok(Exit::of_ending(driven.ending, report.lost(), report.conditions_unmet()))
    }

    fn noun(&self) -> &'static str {
        if self.is_packets { "packets" } else { "records" }
    }

    fn target(&self) -> String {
        let cli = self.cli;
        let show = |target: &Target| match target {
            Target::Stdout => target.to_string(),
            Target::File(_) => format!("`{target}`"),
        };
        let target = match (&cli.iface[..], cli.file(), cli.collector()) {
            (.., Some((collector, _))) => format!("collector `{collector}`"),
            ([name], ..) => format!("interface `{name}`"),
            ([one, other], ..) => format!("interfaces `{one}` and `{other}`"),
            (_, Some(target), _) => show(target),
            _ => "nowhere".to_owned(),
        };
        match &cli.flows_out {
            Some(flows) => format!("{target}, flows to {}", show(flows)),
            None => target,
        }
    }

    fn describe_run(&self) -> DryRun {
        let timeline = &self.bundle.manifest().timeline;
        let span_s = timeline.arrivals.span_ns() as f64 / 1e9;
        let mut how_much = Vec::new();
        if let Some(flows) = self.generate.flows {
            how_much.push(format!("{} flows", grouped(flows)));
        }
        if let Some(records) = self.limits.records {
            how_much.push(format!("{} {}", grouped(records), self.noun()));
        }
        if let Some(duration) = self.generate.duration_ns {
            how_much.push(format!("{} of generated time", show_duration(duration as f64 / 1e9)));
        }
        if let Some(wall) = self.limits.wall {
            how_much.push(show_duration(wall.as_secs_f64()));
        }
        if how_much.is_empty() {
            how_much.push(match &self.generate.attributes {
                _ if self.generate.forever => "without end".to_owned(),
                Some(given) => format!("the {} given flows", grouped(given.len() as u64)),
                None => format!("one trained span, {}", show_duration(span_s)),
            });
        }
        let which = which_flows(self.cli);
        let flows_per_s = timeline.flows as f64 / span_s.max(1e-9);
        let (from, to) = self.generate.flow_rate.ends();
        DryRun {
            bundle: self.cli.bundle.display().to_string(),
            target: self.target(),
            how_much: how_much.join(", at most "),
            which,
            pace: self.pace.to_string().replace("packets", self.noun()),
            begins: show_time(self.origin_ns),
            flows_per_s,
            records_per_s: timeline.records as f64 / span_s.max(1e-9),
            flow_rate: match self.generate.flow_rate.over_ns() {
                0 => format!("{to} times as trained"),
                over => {
                    let over = show_duration(over as f64 / 1e9);
                    format!("from {from} to {to} times as trained over {over}")
                }
            },
            resulting_flows_per_s: to * flows_per_s,
            seed: self.seed,
            wire: None,
        }
    }

    pub(super) fn dry_run(&self, wire: Option<WirePlan>) -> Result<Exit, Failure> {
        let dry_run = DryRun { wire, ..self.describe_run() };
        print(self.cli.json, &dry_run, || dry_run.to_text())
    }
}

impl DryRun {
    fn to_text(&self) -> String {
        format!(
            "from     `{}`\nto       {}\nhow much {}\nwhich    {}\npace     {}\nbegins   {}\ndensity  {:.1} \
             flows/s, {:.1} records/s as trained\nflows    {}: {:.1} flows/s\n{}seed     {}\n",
            self.bundle,
            self.target,
            self.how_much,
            self.which,
            self.pace,
            self.begins,
            self.flows_per_s,
            self.records_per_s,
            self.flow_rate,
            self.resulting_flows_per_s,
            self.wire.as_ref().map_or_else(String::new, WirePlan::to_text),
            self.seed,
        )
    }
}

/// The attributes that the user gives.
fn read_attributes(cli: &Cli, bundle: &Bundle) -> Result<Option<Arc<GivenFlows>>, Failure> {
    let Some(path) = &cli.attributes else { return Ok(None) };
    let given = GivenFlows::read(path, &bundle.manifest().schema)
        .context("cannot use `--attributes`")
        .map_err(|error| Failure::usage(error, None))?;
    Ok(Some(Arc::new(given)))
}

/// Which flows and records are generated, in words.
fn which_flows(cli: &Cli) -> String {
    let mut parts = Vec::new();
    if let Some(path) = &cli.attributes {
        parts.push(format!("given in `{}`", path.display()));
    }
    parts.extend(cli.conditions.iter().map(|condition| format!("`{condition}`")));
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

/// Writes a document to standard output.
fn print(
    json: bool,
    document: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<Exit, Failure> {
    let fail = |error: anyhow::Error| Failure {
        exit: Exit::Output,
        error: error.context("cannot write to standard output"),
        hint: None,
    };
    let text = if json {
        serde_json::to_string_pretty(document).map_err(|error| fail(error.into()))? + "\n"
    } else {
        text()
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(fail(error.into())),
        _ => Ok(Exit::Done),
    }
}

/// Numbers up to 2^53, which every reader of JSON keeps.
fn random_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 11
}
