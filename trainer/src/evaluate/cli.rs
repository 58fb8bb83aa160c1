//! `ns-train evaluate`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use ns_model_format::Packet;
use serde_json::json;

use super::packets::{Metric, compare, flows};
use crate::ingest::{OnError, pcap};

/// What to compare.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ns-train evaluate --real capture.pcap --synthetic synthetic.pcap
R is the distance between real and synthetic over that between two random halves of the real
flows: 1 means as near as the capture is to itself.")]
pub struct EvaluateArgs {
    /// The real capture
    #[arg(long, value_name = "FILE")]
    real: PathBuf,
    /// The synthetic capture
    #[arg(long, value_name = "FILE")]
    synthetic: PathBuf,
    /// Seed of the random halves
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one JSON document to standard output instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A capture that cannot be read, or has too few flows to halve.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let read = |path: &Path| -> anyhow::Result<Vec<Packet>> {
        Ok(pcap::read(path, OnError::Stop)?.packets)
    };
    let (real, synthetic) = (read(&args.real)?, read(&args.synthetic)?);
    let (real_flows, synthetic_flows) = (flows(&real), flows(&synthetic));
    if real_flows.len() < 4 {
        bail!("`{}` has {} flows; a floor needs at least 4", args.real.display(), real_flows.len());
    }
    let metrics = compare(&real_flows, &synthetic_flows, args.seed);
    let mut ratios: Vec<f64> = metrics.iter().filter_map(Metric::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied();
    if args.json {
        let metrics: Vec<_> = metrics
            .iter()
            .map(|metric| {
                json!({
                    "name": metric.name,
                    "distance": metric.distance,
                    "value": metric.value,
                    "floor": metric.floor,
                    "r": metric.ratio(),
                })
            })
            .collect();
        println!("{}", json!({ "summary": { "median_r": median }, "metrics": metrics }));
        return Ok(());
    }
    println!("{:30} {:>12} {:>12}", "", "real", "synthetic");
    let row = |name: &str, of: &dyn Fn(&[Packet], usize) -> String| {
        println!(
            "{name:30} {:>12} {:>12}",
            of(&real, real_flows.len()),
            of(&synthetic, synthetic_flows.len())
        );
    };
    row("packets", &|packets, _| packets.len().to_string());
    row("flows (each direction)", &|_, flows| flows.to_string());
    row("packets a flow", &|packets, flows| format!("{:.1}", packets.len() as f64 / flows as f64));
    row("bytes a packet", &|packets, _| {
        let bytes: f64 = packets.iter().map(|packet| f64::from(packet.len_bytes)).sum();
        format!("{:.0}", bytes / packets.len() as f64)
    });
    row("packets a second", &|packets, _| {
        let span = match (packets.first(), packets.last()) {
            (Some(first), Some(last)) => (last.time_ns - first.time_ns) as f64 / 1e9,
            _ => 0.0,
        };
        if span > 0.0 { format!("{:.1}", packets.len() as f64 / span) } else { "-".to_owned() }
    });
    println!();
    println!("{:30} {:>8} {:>8} {:>8} {:>8}", "distance", "", "value", "floor", "R");
    for metric in &metrics {
        let ratio = metric.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:30} {:>8} {:>8.4} {:>8.4} {:>8}",
            metric.name, metric.distance, metric.value, metric.floor, ratio
        );
    }
    if let Some(median) = median {
        println!("median R {median:.2} (1: as near as two random halves of the real capture)");
    }
    Ok(())
}
