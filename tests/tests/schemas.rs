//! Any table and any capture, unattended: init, check, train, replay.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use ns_tests::{expect, lab_capture, repository, shared_data};

/// Runs a program in a folder, expects success, returns standard output.
fn run(folder: &Path, name: &str, arguments: &[&str]) -> String {
    expect(0, folder, name, arguments).0
}

/// The columns that a configuration names, and the rows that its model generates.
fn generated(folder: &Path, config: &str, bundle: &str) -> (BTreeSet<String>, usize) {
    let file = ns_trainer::config::read(&folder.join(config)).expect("a good configuration");
    let fields = &file.pre_post_processor.config;
    let mut names: BTreeSet<String> =
        fields.metadata.iter().chain(&fields.timeseries).map(|f| f.column.clone()).collect();
    names.extend(fields.timestamp.as_ref().map(|time| time.column.clone()));
    let rows = run(
        folder,
        "ns-replay",
        &["--bundle", bundle, "--csv", "-", "--flows", "200", "--seed", "3", "-q"],
    );
    let mut reader = csv::Reader::from_reader(rows.as_bytes());
    let header: BTreeSet<String> =
        reader.headers().expect("a header").iter().map(str::to_owned).collect();
    assert_eq!(header, names, "{config}");
    let rows: Result<Vec<csv::StringRecord>, csv::Error> = reader.records().collect();
    (names, rows.expect("rows of as many cells").len())
}

/// init, check, train and replay of one input.
fn unattended(input: &Path, more: &[&str], change: impl Fn(String) -> String) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let input = input.to_str().expect("a plain path");
    run(folder, "ns-train", &["init", "--input", input, "--out", "config.json"]);
    let text = std::fs::read_to_string(folder.join("config.json")).expect("written");
    assert!(text.starts_with("// Written by `ns-train init` after "), "{text}");
    std::fs::write(folder.join("config.json"), change(text)).expect("written");
    let common = [&["--input", input, "--config", "config.json"], more].concat();
    let check = run(folder, "ns-train", &[&["check", "--json"], &common[..]].concat());
    let report: serde_json::Value = serde_json::from_str(&check).expect("one JSON document");
    let fields = report["fields"].as_array().expect("fields");
    assert!(!fields.is_empty() && report["records"].as_u64() > Some(0), "{check}");
    for field in fields {
        // What an encoding loses is told; frequent and named values are not lost.
        let lossless = field["encoding"].as_str().is_some_and(|name| {
            ["bit", "categorical", "word2vec", "topk", "octets"].iter().any(|n| name.starts_with(n))
        });
        assert!(!lossless || field["exact"].as_f64() == Some(1.0), "{field}");
    }
    let train = ["train", "--epochs", "1", "--out", "model.ns", "-q"];
    run(folder, "ns-train", &[&train, &common[..]].concat());
    let (_, rows) = generated(folder, "config.json", "model.ns");
    assert!(rows >= 200, "{rows} rows of 200 flows");
}

#[test]
fn the_shipped_capture_goes_through_unattended() {
    unattended(&lab_capture(), &["--max-records", "3000"], |config| config);
}

#[test]
fn real_tables_and_captures_go_through_unattended() {
    let Some(data) = shared_data() else { return };
    let sample = ["--max-records", "3000"];
    for file in ["netflow/do-sensor-3day-20k.csv", "custom/wrccdc-dns.csv", "custom/wrccdc-tls.csv"]
    {
        unattended(&data.join(file), &sample, |config| config);
    }
    let chunks = |config: String| config.replace("\"n_chunks\": 1", "\"n_chunks\": 5");
    unattended(&data.join("pcap/iot-sentinel-20k.pcap"), &sample, chunks);
    unattended(&data.join("pcap/ics-mb2.pcap"), &sample, |config| config);
}

/// The text of the JSON block that follows a heading.
fn json_block<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document.split_once(heading).expect("the heading");
    let (_, rest) = rest.split_once("```json").expect("a block");
    rest.split_once("```").expect("the block's end").0
}

#[test]
fn netshare_s_dns_and_iot_examples_run_as_they_are_written() {
    let document = repository().join("../shared/seed/netshare-design-documentation.md");
    let Ok(document) = std::fs::read_to_string(&document) else {
        println!("skipped: {} is not there", document.display());
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    let mut dns = "timestamp,src_ip,dst_ip,src_port,dst_port,query_type,query_name,response_code,\
                   ttl,packet_size\n"
        .to_owned();
    let mut iot = "timestamp,device_id,device_type,location,temperature,humidity,pressure,\
                   battery_level,status_code,event_type\n"
        .to_owned();
    for row in 0..10_000_u32 {
        // Any numbers that differ from row to row will do.
        let mixed = row.wrapping_mul(2_654_435_761) >> 8;
        let time = 1_609_459_200 + row / 3;
        let _ = writeln!(
            dns,
            "{time},192.168.{}.{},8.8.{}.8,{},53,{},www{}.example.com,{},{},{}",
            mixed % 4,
            mixed % 200,
            mixed % 3,
            1024 + mixed % 60_000,
            ["A", "AAAA", "MX", "TXT"][(mixed % 4) as usize],
            mixed % 300,
            [0, 0, 0, 3, 2][(mixed % 5) as usize],
            [60, 300, 86_400][(mixed % 3) as usize],
            80 + mixed % 400,
        );
        let device = mixed % 120;
        let _ = writeln!(
            iot,
            "{time},iot_{device:03},{},room_{},{:.1},{:.1},{:.2},{},{},{}",
            ["sensor", "camera", "lock"][(device % 3) as usize],
            device % 9,
            18.0 + f64::from(mixed % 90) / 10.0,
            35.0 + f64::from(mixed % 300) / 10.0,
            1000.0 + f64::from(mixed % 3000) / 100.0,
            20 + mixed % 80,
            [200, 200, 200, 404, 500][(mixed % 5) as usize],
            ["reading", "alarm"][(mixed % 2) as usize],
        );
    }
    for (heading, name, rows) in
        [("**DNS Configuration**", "dns", dns), ("**IoT Protocol Configuration:**", "iot", iot)]
    {
        std::fs::write(folder.path().join(format!("data/{name}_data.csv")), rows).expect("written");
        let config = format!("{name}.json");
        let text = json_block(&document, heading);
        std::fs::write(folder.path().join(&config), text).expect("written");
        let bundle = format!("{name}.ns");
        let train = ["train", "--config", &config, "--epochs", "1", "--out", &bundle, "-q"];
        run(folder.path(), "ns-train", &train);
        let (_, rows) = generated(folder.path(), &config, &bundle);
        assert!(rows >= 200, "{name}: {rows} rows of 200 flows");
    }
}

#[test]
fn every_ready_configuration_for_tables_fits_its_schema() {
    let folder = tempfile::tempdir().expect("a folder");
    let configs = repository().join("configs");
    for (config, header, row) in [
        (
            "netflow-cidds.json",
            "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,label,type",
            "10.0.0.{h},10.0.9.2,1000,53,UDP,{t}000000,0.5,1,60,normal,---",
        ),
        (
            "netflow-ton.json",
            "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,label,type",
            "10.0.0.{h},10.0.9.2,1000,53,udp,{t},0.5,1,60,0,normal",
        ),
        (
            "iot.json",
            "timestamp,device_id,device_type,location,temperature,humidity,pressure,battery_level,\
             status_code,event_type",
            "{t},dev{h},sensor,hall,23.5,45.2,1013.25,87,200,reading",
        ),
    ] {
        let rows: String = (0..40)
            .map(|at| {
                let time = (1_700_000_000 + at).to_string();
                row.replace("{t}", &time).replace("{h}", &(at % 2).to_string()) + "\n"
            })
            .collect();
        let input = folder.path().join("rows.csv");
        std::fs::write(&input, format!("{header}\n{rows}")).expect("written");
        let config = configs.join(config);
        let arguments =
            ["check", "--config", config.to_str().expect("a plain path"), "--input", "rows.csv"];
        run(folder.path(), "ns-train", &arguments);
    }
    // Zeek's own format, comments and all.
    let fields = "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes \
                  conn_state local_orig local_resp missed_bytes history orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes tunnel_parents";
    let mut log = format!(
        "#separator \\x09\n#unset_field\t-\n#path\tconn\n#fields\t{}\n",
        fields.replace(' ', "\t")
    );
    for at in 0..40 {
        let (host, bytes) = if at % 3 == 0 { ("2001:db8::7", "-") } else { ("10.0.0.9", "512") };
        let row = format!(
            "{}.5 C{at} {host} 50{at:03} 192.0.2.1 443 tcp ssl 0.25 {bytes} 100 SF T F 0 ShADadfF 5 800 4 400 (empty)",
            1_700_000_000 + at
        );
        log += &(row.replace(' ', "\t") + "\n");
    }
    log += "#close\t2023-11-14\n";
    std::fs::write(folder.path().join("conn.log"), log).expect("written");
    let config = configs.join("zeek-conn.json");
    let config = config.to_str().expect("a plain path");
    let train = [
        "train", "--config", config, "--input", "conn.log", "--epochs", "1", "--out", "conn.ns",
        "-q",
    ];
    run(folder.path(), "ns-train", &train);
    let rows = run(
        folder.path(),
        "ns-replay",
        &["--bundle", "conn.ns", "--csv", "-", "--flows", "50", "-q"],
    );
    let mut reader = csv::Reader::from_reader(rows.as_bytes());
    let header = reader.headers().expect("a header").clone();
    assert_eq!(header.iter().next(), Some("ts"));
    let at = |name: &str| header.iter().position(|cell| cell == name).expect("the column");
    let (host, bytes) = (at("id.orig_h"), at("orig_bytes"));
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    assert!(rows.len() >= 50);
    for row in &rows {
        assert!(row[host].parse::<std::net::IpAddr>().is_ok(), "{row:?}");
        assert!(&row[bytes] == "-" || &row[bytes] == "512", "{row:?}");
    }
}

#[test]
fn captures_become_tables_and_tables_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = lab_capture();
    let lab = lab.to_str().expect("a plain path");
    for out in ["packets.csv", "packets.parquet"] {
        run(folder.path(), "ns-train", &["convert", "--input", lab, "--out", out]);
    }
    // The same packets, whichever file they are read from.
    let flow = r#"{ "global_config": { "dataset_type": "netflow" }, "pre_post_processor": { "config": {
        "timestamp": { "column": "time" },
        "metadata": [
            { "column": "srcip", "type": "ip_string" }, { "column": "dstip", "type": "ip_string" },
            { "column": "srcport", "type": "integer", "encoding": "bit", "n_bits": 16 },
            { "column": "dstport", "type": "integer", "encoding": "bit", "n_bits": 16 },
            { "column": "proto", "type": "integer", "encoding": "categorical" } ],
        "timeseries": [ { "column": "pkt_len", "type": "integer", "encoding": "quantile" },
            { "column": "tcp_flags", "type": "integer", "encoding": "categorical" } ] } } }"#;
    std::fs::write(folder.path().join("table.json"), flow).expect("written");
    let report = |input: &str| -> serde_json::Value {
        let arguments = ["check", "--json", "--config", "table.json", "--input", input];
        serde_json::from_str(&run(folder.path(), "ns-train", &arguments)).expect("JSON")
    };
    let (csv, parquet) = (report("packets.csv"), report("packets.parquet"));
    for key in ["records", "flows", "fields"] {
        assert_eq!(csv[key], parquet[key], "{key}");
    }
    let packets = flow
        .replace("netflow", "pcap")
        .replace("ip_string\"", "integer\", \"encoding\": \"bit\", \"n_bits\": 32");
    std::fs::write(folder.path().join("table.json"), packets).expect("written");
    let capture = report(lab);
    assert_eq!((&csv["records"], &csv["flows"]), (&capture["records"], &capture["flows"]));
}

/// The 5-tuples of a CSV's rows, and how many rows it has.
fn five_tuples(path: &Path) -> (BTreeSet<Vec<String>>, usize) {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    // A conversation's two directions are one flow.
    let flow = |row: &csv::StringRecord| {
        let mut ends = [format!("{}:{}", &row[0], &row[2]), format!("{}:{}", &row[1], &row[3])];
        ends.sort();
        [&ends[..], &[row[4].to_owned()]].concat()
    };
    (rows.iter().map(flow).collect(), rows.len())
}

#[test]
fn parts_share_no_flow_and_lose_no_packet() {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = lab_capture();
    let lab = lab.to_str().expect("a plain path");
    run(folder.path(), "ns-train", &["convert", "--input", lab, "--out", "all.csv", "-q"]);
    let (all, packets) = five_tuples(&folder.path().join("all.csv"));
    for by in ["time", "flow"] {
        let split = ["split", "--input", lab, "--by", by, "--out", by, "--json"];
        let told = run(folder.path(), "ns-train", &split);
        let told: serde_json::Value = serde_json::from_str(&told).expect("one JSON document");
        let (mut flows, mut count) = (BTreeSet::new(), 0);
        for (index, name) in ["train", "validation", "test"].into_iter().enumerate() {
            let part = format!("{by}/{name}.pcap");
            let table = format!("{by}-{name}.csv");
            run(folder.path(), "ns-train", &["convert", "--input", &part, "--out", &table, "-q"]);
            let (part, records) = five_tuples(&folder.path().join(&table));
            assert_eq!(told["parts"][index]["records"].as_u64(), Some(records as u64));
            assert!(flows.is_disjoint(&part), "{by}: `{name}` shares a flow with a part before");
            flows.extend(part);
            count += records;
        }
        assert_eq!((flows, count), (all.clone(), packets), "{by}");
    }
    // A part is sampled like any other input, and what is read is not written over.
    let small = ["check", "--json", "--input", "flow/validation.pcap", "--max-records", "1000"];
    let report: serde_json::Value =
        serde_json::from_str(&run(folder.path(), "ns-train", &small)).expect("JSON");
    assert!(report["flows"].as_u64() > Some(5), "{report}");
    let onto = ["split", "--input", "flow/test.pcap", "--by", "flow", "--out", "flow"];
    let (_, refused) = expect(2, folder.path(), "ns-train", &onto);
    assert!(refused.contains("is the input"), "{refused}");
    // A table is split by the columns that name its flows.
    let split =
        ["split", "--input", "all.csv", "--by", "flow", "--parts", "0.8,0.2", "--out", "rows"];
    run(folder.path(), "ns-train", &split);
    let [(train, a), (test, b)] =
        ["train", "test"].map(|part| five_tuples(&folder.path().join(format!("rows/{part}.csv"))));
    assert_eq!(a + b, packets);
    // Each direction is a flow of its own there.
    assert!(!train.is_empty() && !test.is_empty());
}
