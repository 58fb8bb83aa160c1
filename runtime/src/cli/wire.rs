//! From the command line to interfaces: which, how frames go out on them, and what a dry run
//! says of that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::Cli;
use super::run::{Failure, Plan};
use crate::error::RuntimeError;
use crate::exit::Exit;
use crate::generate::Generator;
use crate::packets::{DEFAULT_DESTINATION, ETHERNET_BYTES, Mac, PacketOptions, PacketRender};
use crate::prefix::{Mapping, Prefix, address_of};
use crate::sink::{Interface, InterfaceSink, Log, SendThrough, SinkError, WireOptions};
use crate::stats::grouped;

/// Packets that a dry run generates to see where they would go.
const SAMPLE: usize = 1000;
/// Destinations that it names.
const NAMED: usize = 5;

/// What a dry run says of the wire.
#[derive(Debug, Serialize)]
pub(super) struct WirePlan {
    interfaces: Vec<SidePlan>,
    send_through: SendThrough,
    vlan: Option<u16>,
    map: Vec<String>,
    allowed: Vec<Prefix>,
    /// Of so many packets at the beginning.
    sampled: usize,
    /// Their destinations, the most frequent first.
    destinations: Vec<(IpAddr, usize)>,
    destination_count: usize,
}

#[derive(Debug, Serialize)]
struct SidePlan {
    name: String,
    sends: &'static str,
    source_mac: String,
    destination_mac: String,
    mtu: usize,
    default_route: bool,
}

/// Sends on the interfaces of the command line, or says what would be sent.
pub(super) fn run(plan: Plan) -> Result<Exit, Failure> {
    let cli = plan.cli;
    let interfaces = find(cli)?;
    if interfaces.len() > 1 && !plan.bundle.manifest().schema.conversations {
        let error = anyhow::anyhow!(
            "the bundle's flows have one direction; two interfaces are for conversations"
        );
        return Err(Failure::usage(error, Some("give `--iface` once")));
    }
    let mut packets = plan.packets.clone();
    let destination = interfaces.get(1).map_or(DEFAULT_DESTINATION, |other| other.mac);
    packets.source = cli.src_mac.unwrap_or(interfaces[0].mac);
    packets.destination = cli.dst_mac.unwrap_or(destination);
    let options = WireOptions {
        payload: packets.payload.clone(),
        oversize: cli.oversize,
        on_down: cli.on_down,
        send_through: cli.send_through,
        vlan: cli.vlan,
        allow: cli.allow_net.clone(),
        log: if cli.quiet { Log::default() } else { plan.terminal.log() },
    };
    for interface in interfaces.iter().filter(|interface| interface.has_default_route()) {
        // What a dry run prints says so itself.
        if !cli.quiet && !cli.dry_run {
            let name = &interface.name;
            (options.log.0)(&format!(
                "warning: interface `{name}` carries the default route: what is sent may get far"
            ));
        }
    }
    // Opened even for a dry run, which is to tell what would fail.
    let mut sink = InterfaceSink::open(interfaces.clone(), options)?;
    if cli.dry_run {
        let wire = WirePlan::new(&plan, &packets, &interfaces)?;
        return plan.dry_run(Some(wire));
    }
    plan.play(packets, &mut sink)
}

fn find(cli: &Cli) -> Result<Vec<Interface>, Failure> {
    let names = &cli.iface;
    if names.len() > 2 || names.len() == 2 && names[0] == names[1] {
        let error = anyhow::anyhow!("`--iface` names one interface, or two different ones");
        let hint = "the first is for the side that begins conversations, the second for the other";
        return Err(Failure::usage(error, Some(hint)));
    }
    let found: Result<_, SinkError> = names.iter().map(|name| Interface::find(name)).collect();
    Ok(found?)
}

impl WirePlan {
    fn new(
        plan: &Plan,
        packets: &PacketOptions,
        interfaces: &[Interface],
    ) -> Result<WirePlan, Failure> {
        let cli = plan.cli;
        let sides = [(packets.source, packets.destination), (packets.destination, packets.source)];
        let sides =
            interfaces.iter().zip(sides).enumerate().map(|(side, (interface, macs))| SidePlan {
                name: interface.name.clone(),
                sends: match (interfaces.len(), side) {
                    (1, _) => "all packets",
                    (_, 0) => "packets of the side that begins a conversation",
                    _ => "packets of the other side",
                },
                source_mac: show_mac(macs.0),
                destination_mac: show_mac(macs.1),
                mtu: interface.mtu,
                default_route: interface.has_default_route(),
            });
        let mut counts: HashMap<(bool, u128), usize> = HashMap::new();
        let mut sampled = 0;
        let render = PacketRender::new(&plan.bundle.manifest().schema, packets.clone())
            .map_err(|error| Failure::usage(error, None))?;
        let generator = Generator::open(Arc::clone(&plan.bundle), plan.generate.clone())?;
        let most = usize::try_from(plan.limits.records.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        for event in generator.stream(render)?.take(SAMPLE.min(most)) {
            let destination = event.map_err(|error: RuntimeError| error)?.item.destination();
            let (is_v6, address) = destination;
            let holds = |prefix: &Prefix| prefix.holds(is_v6, address);
            if !cli.allow_net.is_empty() && !cli.allow_net.iter().any(holds) {
                return Err(SinkError::refused(is_v6, address, &cli.allow_net).into());
            }
            *counts.entry(destination).or_default() += 1;
            sampled += 1;
        }
        let mut destinations: Vec<_> = counts
            .into_iter()
            .map(|((is_v6, address), count)| (address_of(is_v6, address), count))
            .collect();
        destinations.sort_by_key(|&(address, count)| (std::cmp::Reverse(count), address));
        let destination_count = destinations.len();
        destinations.truncate(NAMED);
        Ok(WirePlan {
            interfaces: sides.collect(),
            send_through: cli.send_through,
            vlan: cli.vlan,
            map: cli.map.iter().map(Mapping::to_string).collect(),
            allowed: cli.allow_net.clone(),
            sampled,
            destinations,
            destination_count,
        })
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for side in &self.interfaces {
            let vlan = self.vlan.map_or_else(String::new, |id| format!(", VLAN {id}"));
            text += &format!(
                "on       `{}`: {}, from {} to {}{vlan}, at most {} bytes\n",
                side.name,
                side.sends,
                side.source_mac,
                side.destination_mac,
                side.mtu + ETHERNET_BYTES,
            );
            if side.default_route {
                text += &format!("warning  `{}` carries the default route\n", side.name);
            }
        }
        if self.send_through != SendThrough::default() {
            text += "through  pnet\n";
        }
        if !self.map.is_empty() {
            text += &format!("mapped   {}\n", self.map.join(", "));
        }
        if !self.allowed.is_empty() {
            let allowed: Vec<String> = self.allowed.iter().map(Prefix::to_string).collect();
            text += &format!("allowed  {}\n", allowed.join(", "));
        }
        let named = self.destinations.iter().map(|(address, count)| format!("{address} ({count})"));
        let named: Vec<String> = named.collect();
        let more = if self.destination_count > named.len() { ", ..." } else { "" };
        text + &format!(
            "goes to  {} addresses in the first {} packets: {}{more}\n",
            grouped(self.destination_count as u64),
            grouped(self.sampled as u64),
            named.join(", "),
        )
    }
}

fn show_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
