//! What a column is, by its name.

/// The field's usual names for what names a flow, and for time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    SrcIp,
    DstIp,
    SrcPort,
    DstPort,
    Proto,
}

const ROLES: [(Role, &[&str]); 5] = [
    (
        Role::SrcIp,
        &[
            "srcip",
            "sourceip",
            "srcaddr",
            "sourceaddress",
            "saddr",
            "sa",
            "ipsrc",
            "idorigh",
            "srcipaddr",
            "srchost",
            "clientip",
            "ipv4srcaddr",
            "sourceipaddress",
        ],
    ),
    (
        Role::DstIp,
        &[
            "dstip",
            "destip",
            "destinationip",
            "dstaddr",
            "destinationaddress",
            "daddr",
            "da",
            "ipdst",
            "idresph",
            "dstipaddr",
            "dsthost",
            "serverip",
            "ipv4dstaddr",
            "destinationipaddress",
        ],
    ),
    (
        Role::SrcPort,
        &["srcport", "sourceport", "sport", "sp", "idorigp", "srcpt", "clientport", "l4srcport"],
    ),
    (
        Role::DstPort,
        &[
            "dstport",
            "destport",
            "destinationport",
            "dport",
            "dp",
            "idrespp",
            "dstpt",
            "serverport",
            "l4dstport",
        ],
    ),
    (Role::Proto, &["proto", "protocol", "pr", "ipproto", "ipprotocol", "transport"]),
];

/// What a flow record counts or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Packets,
    Bytes,
    Duration,
}

const FIGURES: [(Figure, &[&str]); 3] = [
    (Figure::Packets, &["pkt", "pkts", "packets", "ipkt", "inpkts", "origpkts", "numpackets"]),
    (
        Figure::Bytes,
        &["byt", "byte", "bytes", "ibyt", "inbytes", "origbytes", "numbytes", "octets"],
    ),
    (Figure::Duration, &["td", "duration", "dur", "flowduration"]),
];

/// Names of time columns, the likeliest first.
const TIMES: [&str; 19] = [
    "ts",
    "timestamp",
    "time",
    "datetime",
    "datefirstseen",
    "firstseen",
    "starttime",
    "stime",
    "flowstart",
    "firstswitched",
    "start",
    "frametimeepoch",
    "frametime",
    "date",
    "eventtime",
    "timegenerated",
    "time_start",
    "begin",
    "t",
];

/// Words in the name of a column that says who or what a record is about.
const ENTITIES: [&str; 14] = [
    "device", "sensor", "host", "client", "user", "node", "station", "session", "meter", "vehicle",
    "asset", "account", "imsi", "id",
];

/// Lower case, letters and digits only.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

pub(crate) fn role(name: &str) -> Option<Role> {
    let name = plain(name);
    ROLES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|&(role, _)| role)
}

pub(crate) fn figure(name: &str) -> Option<Figure> {
    let name = plain(name);
    FIGURES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|&(figure, _)| figure)
}

/// How likely a name is that of the time column; smaller is likelier.
pub(crate) fn time_rank(name: &str) -> Option<usize> {
    let name = plain(name);
    TIMES.iter().position(|known| *known == name)
}

/// How likely a name is that of an entity; smaller is likelier.
pub(crate) fn entity_rank(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let is_id = words.clone().next_back() == Some("id");
    let known = words.find_map(|word| ENTITIES.iter().position(|known| *known == word))?;
    Some(if is_id { known } else { known + ENTITIES.len() })
}
