//! From a bundle to a file, through the runtime: what `ns-replay` does, for
//! programs that train as well.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ns_model_format::Bundle;
use ns_model_format::schema::TraceKind;
use ns_runtime::drive::{Control, DriveError, Limits, drive};
use ns_runtime::pace::Pace;
use ns_runtime::packets::PacketError;
use ns_runtime::sink::{
    CsvFormat, DEFAULT_SNAPLEN, FileSink, Format, Item, PartSink, PcapFormat, Target,
};
use ns_runtime::stats::{Report, SelectionReport};
use ns_runtime::{
    GenerateOptions, Generator, PacketOptions, PacketRender, Render, RowRender, RuntimeError, Sink,
    SinkError,
};
use signal_hook::consts::SIGINT;

/// Records from one look at the caller's wishes to the next.
const LOOK_EVERY: u64 = 256;

/// Why a trace was not generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Generation cannot begin or go on.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The bundle calls its records packets, and they cannot be.
    #[error(transparent)]
    Packets(#[from] PacketError),
    /// The file.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl From<DriveError<RuntimeError>> for GenerateError {
    fn from(error: DriveError<RuntimeError>) -> GenerateError {
        match error {
            DriveError::Generate(error) => GenerateError::Runtime(error),
            DriveError::Sink(error) => GenerateError::Sink(error),
        }
    }
}

/// How generation goes, now and then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generating {
    /// Packets, or rows.
    pub records: u64,
    /// Flows begun.
    pub flows: u64,
    /// How much of it is done, 0 to 1; `None` without an end.
    pub share: Option<f64>,
}

/// Generates a file: a PCAP of headers where the bundle holds packets, else a
/// CSV. It gets its name when it is whole. `watch` is called now and then; when
/// it returns false, the file ends there, with whole records.
///
/// # Errors
/// No ONNX Runtime, options that do not fit the bundle, a file that cannot be written.
pub fn generate(
    bundle: Arc<Bundle>,
    out: &Path,
    options: GenerateOptions,
    watch: impl FnMut(&Generating) -> bool,
) -> Result<Report, GenerateError> {
    into(&bundle, &Out::Whole(Target::File(out.to_owned())), options, watch)
}

/// Generates the part of a run that [`GenerateOptions::part`] names, to be merged by
/// [`ns_runtime::sink::merge_parts`]. When `watch` returns false there is no file.
///
/// # Errors
/// As [`generate`].
pub fn generate_part(
    bundle: &Arc<Bundle>,
    out: &Path,
    options: GenerateOptions,
    watch: impl FnMut(&Generating) -> bool,
) -> Result<Report, GenerateError> {
    into(bundle, &Out::Part(out.to_owned()), options, watch)
}

/// Where records go.
enum Out {
    Whole(Target),
    Part(PathBuf),
}

impl Out {
    fn begin<T: Item, F: Format<T> + 'static>(
        &self,
        format: F,
    ) -> Result<Box<dyn Sink<T>>, SinkError> {
        Ok(match self {
            Out::Whole(target) => Box::new(FileSink::begin(target, format)?),
            Out::Part(path) => Box::new(PartSink::begin(path, format)?),
        })
    }

    fn name(&self) -> String {
        match self {
            Out::Whole(target) => format!("`{target}`"),
            Out::Part(path) => format!("`{}`", path.display()),
        }
    }
}

fn into(
    bundle: &Arc<Bundle>,
    out: &Out,
    options: GenerateOptions,
    watch: impl FnMut(&Generating) -> bool,
) -> Result<Report, GenerateError> {
    let manifest = bundle.manifest();
    let schema = &manifest.schema;
    let given_origin_ns = options.attributes.as_ref().and_then(|given| given.origin_ns());
    let origin_ns = given_origin_ns.unwrap_or(manifest.timeline.origin_ns);
    if schema.kind == TraceKind::Packets {
        let packets = PacketOptions { seed: options.seed, ..PacketOptions::default() };
        let payload = packets.payload.clone();
        let render = PacketRender::new(schema, packets)?;
        let snaplen = DEFAULT_SNAPLEN;
        let format = PcapFormat { payload, snaplen, origin_ns, nanoseconds: false };
        return run(bundle, options, render, format, watch, (out, "packets"));
    }
    let render = RowRender::new(schema, origin_ns);
    let format = CsvFormat { header: render.header() };
    run(bundle, options, render, format, watch, (out, "records"))
}

fn run<R, F>(
    bundle: &Arc<Bundle>,
    options: GenerateOptions,
    render: R,
    format: F,
    mut watch: impl FnMut(&Generating) -> bool,
    (out, noun): (&Out, &'static str),
) -> Result<Report, GenerateError>
where
    R: Render,
    R::Item: Item,
    F: Format<R::Item> + 'static,
{
    let end = End::of(&options, bundle.manifest().timeline.arrivals.span_ns());
    let (seed, conditions) = (options.seed, options.conditions.clone());
    let events = Generator::open(Arc::clone(bundle), options)?.stream(render)?;
    let stats = events.stats_reader();
    let control = Control::default();
    let (mut records, mut flows) = (0, 0);
    let events = events.inspect(|event| {
        let Ok(event) = event else { return };
        records += 1;
        flows += u64::from(event.record == 0);
        if records % LOOK_EVERY == 0 {
            let share = end.share(flows, event.time_ns);
            if !watch(&Generating { records, flows, share }) {
                control.stop.store(SIGINT as usize, Ordering::Relaxed);
            }
        }
    });
    let mut sink = out.begin(format)?;
    let (driven, result) =
        drive(events, &mut *sink, Pace::TopSpeed, false, Limits::default(), &control);
    result?;
    let mut report = Report::new(&driven, seed, out.name(), noun);
    report.mixed_versions = stats.read().mixed_versions;
    if !conditions.is_empty() {
        let conditions = conditions.iter().map(ToString::to_string).collect();
        report.selection = Some(SelectionReport::new(conditions, &stats.read()));
    }
    Ok(report)
}

/// What ends a run, as far as it is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
struct End {
    flows: Option<u64>,
    time_ns: Option<u64>,
}

impl End {
    fn of(options: &GenerateOptions, span_ns: u64) -> End {
        let of_part = |flows: u64| flows.div_ceil(options.part.1.max(1));
        let given = options.attributes.as_ref().map(|given| given.len() as u64);
        let (given, flows) = (given.map(of_part), options.flows.map(of_part));
        match (flows, options.duration_ns) {
            (None, None) if options.forever => End { flows: None, time_ns: None },
            (None, None) if given.is_some() => End { flows: given, time_ns: None },
            (None, None) => End { flows: None, time_ns: Some(span_ns) },
            (flows, time_ns) => End { flows, time_ns },
        }
    }

    fn share(self, flows: u64, time_ns: u64) -> Option<f64> {
        let of = |done: u64, all: u64| (done as f64 / all.max(1) as f64).min(1.0);
        let by_flows = self.flows.map(|all| of(flows, all));
        let by_time = self.time_ns.map(|all| of(time_ns, all));
        // `None` is below all numbers; whichever limit is nearer ends the run.
        if by_flows >= by_time { by_flows } else { by_time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_run_is_follows_from_what_ends_it() {
        let end = |change: &dyn Fn(&mut GenerateOptions)| {
            let mut options = GenerateOptions::default();
            change(&mut options);
            End::of(&options, 1000)
        };
        assert_eq!(end(&|_| ()).share(7, 250), Some(0.25));
        assert_eq!(end(&|_| ()).share(7, 2500), Some(1.0));
        assert_eq!(end(&|options| options.forever = true).share(7, 250), None);
        assert_eq!(end(&|options| options.flows = Some(14)).share(7, 250), Some(0.5));
        let both = end(&|options| {
            options.flows = Some(14);
            options.duration_ns = Some(500);
        });
        assert_eq!((both.share(7, 100), both.share(1, 400)), (Some(0.5), Some(0.8)));
    }
}
