//! The truth about flows: a line for each, beside any sink.
//!
//! What a flow's attributes are, and when it ends, is known where it is generated; which
//! of its records went out is known at the sink. So workers leave notes ([`FlowRender`]),
//! and [`FlowSink`] puts both together. A flow's line is written once the records have come
//! past its end, in order of (end, flow): the same for any number of threads, and only
//! flows that are on their way are remembered.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use ns_model_format::{Schema, Value};

use super::output::{Output, Target};
use super::{InterfaceReport, Item, Sent, Sink, SinkError};
use crate::render::{Event, FlowEnd, Render};
use crate::rows::push_quoted;
use crate::timeline::Key;

/// Records that the sink may hold back and lose, at most.
const MOST_PENDING: usize = 8192;

/// What is known of flows where they are generated, on its way to the sink.
#[derive(Clone, Debug, Default)]
pub struct FlowNotes(Arc<Mutex<Vec<Note>>>);

#[derive(Debug)]
enum Note {
    Begin { flow: u64, attributes: Box<[Value]> },
    End(FlowEnd),
}

impl FlowNotes {
    fn add(&self, note: Note) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    fn swap(&self, notes: &mut Vec<Note>) {
        std::mem::swap(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), notes);
    }
}

/// Renders as another does, and notes how flows begin and end.
#[derive(Clone, Debug)]
pub struct FlowRender<R> {
    render: R,
    notes: Option<FlowNotes>,
}

impl<R> FlowRender<R> {
    /// For a [`FlowSink`] that is given the same notes, or for none.
    #[must_use]
    pub fn new(render: R, notes: Option<FlowNotes>) -> FlowRender<R> {
        FlowRender { render, notes }
    }
}

impl<R: Render> Render for FlowRender<R> {
    type Flow = R::Flow;
    type Item = R::Item;

    fn begin_flow(&mut self, flow: u64, attributes: &[Value]) -> R::Flow {
        if let Some(notes) = &self.notes {
            notes.add(Note::Begin { flow, attributes: attributes.into() });
        }
        self.render.begin_flow(flow, attributes)
    }

    fn record(&mut self, flow: &mut R::Flow, time_ns: u64, measurements: &[Value]) -> R::Item {
        self.render.record(flow, time_ns, measurements)
    }

    fn end_flow(&mut self, flow: R::Flow, end: FlowEnd) {
        if let Some(notes) = &self.notes {
            notes.add(Note::End(end));
        }
        self.render.end_flow(flow, end);
    }
}

/// A flow on its way.
#[derive(Debug, Default)]
struct Flow {
    attributes: Box<[Value]>,
    first_ns: u64,
    last_ns: u64,
    /// Of both sides, and of these the second's.
    count: Count,
    replies: Count,
    end: Option<FlowEnd>,
}

#[derive(Debug, Default)]
struct Count {
    records: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u32) {
        self.records += 1;
        self.bytes += u64::from(bytes);
    }
}

/// A record that the sink was given.
#[derive(Debug)]
struct Given {
    key: Key,
    bytes: u32,
    is_reply: bool,
}

/// Hands records to another sink, and writes a CSV with a line for every flow of which any
/// record was given to it, also those that an interface dropped, left out or shortened: its number, the times of its first and last record in seconds since
/// 1970, how many records it has and, of packets, bytes of frames, whether it came to its own
/// end within the run, and its attributes.
pub struct FlowSink<'a, T> {
    sink: &'a mut dyn Sink<T>,
    output: Output,
    schema: Arc<Schema>,
    origin_ns: i64,
    notes: FlowNotes,
    /// Notes that are being read.
    news: Vec<Note>,
    /// What the sink was given since it was last flushed.
    pending: VecDeque<Given>,
    /// How many records before these.
    settled: u64,
    flows: HashMap<u64, Flow>,
    /// Ends of flows that records may not have come past.
    ends: BinaryHeap<Reverse<Key>>,
    last: Option<Key>,
    line: String,
    cell: String,
}

impl<T> std::fmt::Debug for FlowSink<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowSink").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}

impl<'a, T: Item> FlowSink<'a, T> {
    /// Begins the file. The run begins at `origin_ns`, in nanoseconds since the epoch, and
    /// is rendered by a [`FlowRender`] with the same `notes`.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(
        target: &Target,
        schema: &Schema,
        origin_ns: i64,
        notes: FlowNotes,
        sink: &'a mut dyn Sink<T>,
    ) -> Result<FlowSink<'a, T>, SinkError> {
        let mut output = Output::create(target)?;
        output.buffer.extend_from_slice(header::<T>(schema).as_bytes());
        output.end_record()?;
        Ok(FlowSink {
            sink,
            output,
            schema: Arc::new(schema.clone()),
            origin_ns,
            notes,
            news: Vec::new(),
            pending: VecDeque::new(),
            settled: 0,
            flows: HashMap::new(),
            ends: BinaryHeap::new(),
            last: None,
            line: String::new(),
            cell: String::new(),
        })
    }

    /// Counts the first of the pending records, and writes the flows that they come past.
    fn settle(&mut self, count: usize) -> Result<(), SinkError> {
        self.notes.swap(&mut self.news);
        for note in self.news.drain(..) {
            match note {
                Note::Begin { flow, attributes } => {
                    self.flows.insert(flow, Flow { attributes, ..Flow::default() });
                }
                Note::End(end) => {
                    if let Some(flow) = self.flows.get_mut(&end.flow) {
                        flow.end = Some(end);
                        self.ends.push(Reverse(Key { time_ns: end.time_ns, flow: end.flow }));
                    }
                }
            }
        }
        for _ in 0..count {
            let Some(Given { key, bytes, is_reply }) = self.pending.pop_front() else { break };
            self.last = Some(key);
            self.settled += 1;
            while self.ends.peek().is_some_and(|Reverse(end)| *end < key) {
                let ended = self.ends.pop().map(|Reverse(end)| end.flow);
                if let Some((number, flow)) = ended.and_then(|at| self.flows.remove_entry(&at)) {
                    self.write_line(number, &flow)?;
                }
            }
            // No event comes before its flow has begun.
            let Some(flow) = self.flows.get_mut(&key.flow) else { continue };
            if flow.count.records == 0 {
                flow.first_ns = key.time_ns;
            }
            flow.last_ns = key.time_ns;
            flow.count.add(bytes);
            if is_reply {
                flow.replies.add(bytes);
            }
        }
        Ok(())
    }

    fn write_line(&mut self, number: u64, flow: &Flow) -> Result<(), SinkError> {
        if flow.count.records == 0 {
            return Ok(());
        }
        let line = &mut self.line;
        line.clear();
        // Writing to a String cannot fail.
        let _ = write!(line, "{number},");
        push_seconds(self.origin_ns, flow.first_ns, line);
        line.push(',');
        push_seconds(self.origin_ns, flow.last_ns, line);
        let _ = write!(line, ",{}", flow.count.records);
        if T::IS_FRAME {
            let _ = write!(line, ",{}", flow.count.bytes);
            if self.schema.conversations {
                let _ = write!(line, ",{},{}", flow.replies.records, flow.replies.bytes);
            }
        }
        let ended = flow.end.is_some_and(|end| {
            end.complete && Some(Key { time_ns: end.time_ns, flow: number }) <= self.last
        });
        line.push_str(if ended { ",yes" } else { ",no" });
        for (field, &value) in self.schema.attributes.iter().zip(&flow.attributes) {
            self.cell.clear();
            field.write_text(value, &mut self.cell);
            line.push(',');
            push_quoted(&self.cell, line);
        }
        line.push('\n');
        self.output.buffer.extend_from_slice(line.as_bytes());
        self.output.end_record()
    }

    /// Writes the flows that have not come to their end, and ends the file.
    fn finish_flows(&mut self) -> Result<(), SinkError> {
        let mut rest: Vec<(u64, Flow)> = self.flows.drain().collect();
        rest.sort_unstable_by_key(|(number, flow)| (flow.last_ns, *number));
        self.ends.clear();
        for (number, flow) in &rest {
            self.write_line(*number, flow)?;
        }
        self.output.finish()
    }

    /// After an error of the other sink: what it took before is told.
    fn fail(&mut self, error: SinkError) -> SinkError {
        let took = self.sink.sent().taken().saturating_sub(self.settled);
        let told = self.settle(usize::try_from(took).unwrap_or(usize::MAX));
        // The first error is the one that counts.
        let _ = told.and_then(|()| self.finish_flows());
        error
    }

    /// After an error of our own: what the other sink took stays.
    fn or_finish_other(&mut self, result: Result<(), SinkError>) -> Result<(), SinkError> {
        if result.is_err() {
            // The first error is the one that counts.
            let _ = self.sink.finish();
        }
        result
    }
}

impl<T: Item> Sink<T> for FlowSink<'_, T> {
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        let written = self.sink.write(events);
        // What waits is given again later.
        let waiting = match &written {
            Err(SinkError::NotReady { unsent, .. }) => *unsent,
            _ => 0,
        };
        let given = &events[..events.len().saturating_sub(waiting)];
        self.pending.extend(given.iter().map(|event| Given {
            key: Key { time_ns: event.time_ns, flow: event.flow },
            bytes: event.item.bytes() as u32,
            is_reply: event.item.is_reply(),
        }));
        if let Err(SinkError::NotReady { .. }) = written {
            return written;
        }
        written.map_err(|error| self.fail(error))?;
        if self.pending.len() >= MOST_PENDING { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush().map_err(|error| self.fail(error))?;
        let told = self.settle(usize::MAX).and_then(|()| self.output.flush());
        self.or_finish_other(told)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.sink.finish().map_err(|error| self.fail(error))?;
        self.settle(usize::MAX)?;
        self.finish_flows()
    }

    fn sent(&self) -> Sent {
        self.sink.sent()
    }

    fn ready(&mut self) -> Result<bool, SinkError> {
        self.sink.ready().map_err(|error| self.fail(error))
    }

    fn warm_up(&mut self, next: &Event<T>) {
        self.sink.warm_up(next);
    }

    fn interfaces(&self) -> Vec<InterfaceReport> {
        self.sink.interfaces()
    }
}

/// The line of names.
fn header<T: Item>(schema: &Schema) -> String {
    let mut names = vec!["flow", "start", "end"];
    match (T::IS_FRAME, schema.conversations) {
        (false, _) => names.push("records"),
        (true, false) => names.extend(["packets", "bytes"]),
        (true, true) => names.extend(["packets", "bytes", "reply_packets", "reply_bytes"]),
    }
    names.push("complete");
    let mut line = String::new();
    for name in names {
        line.push_str(name);
        // An attribute keeps its own name.
        if schema.attributes.iter().any(|field| field.name == name) {
            line.push('_');
        }
        line.push(',');
    }
    for field in &schema.attributes {
        push_quoted(&field.name, &mut line);
        line.push(',');
    }
    line.pop();
    line.push('\n');
    line
}

/// Appends a time of the run in seconds since the epoch, all digits.
fn push_seconds(origin_ns: i64, time_ns: u64, line: &mut String) {
    let time_ns = i128::from(origin_ns) + i128::from(time_ns);
    let sign = if time_ns < 0 { "-" } else { "" };
    let time_ns = time_ns.unsigned_abs();
    // Writing to a String cannot fail.
    let _ = write!(line, "{sign}{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000);
}
