#!/usr/bin/env python3
"""Compares `ns-train evaluate` with an independent implementation of the same distances.

usage: evaluate.py NS_TRAIN PEERS REAL SYNTHETIC

NS_TRAIN is the program, PEERS the folder with packet_metrics.py and floors.py (they need numpy and
scipy), REAL and SYNTHETIC two captures, or two NetFlow tables in the columns of ugr16. Distances
of the whole traces must agree to rounding; prints a line a metric, and exits with 1 if one does not.
"""
import contextlib
import csv
import io
import json
import math
import subprocess
import sys
from collections import Counter

program, peers, real, synthetic = sys.argv[1:]
sys.path.insert(0, peers)
import packet_metrics as peer  # noqa: E402

# Ours, theirs. What stands in neither list is defined by one side only.
PACKETS = {
    "srcip.rank_jsd": "SA",
    "dstip.rank_jsd": "DA",
    "srcport.jsd": "SP",
    "dstport.jsd": "DP",
    "proto.jsd": "PR",
    "service.tv": "DPsvc_tv",
    "pkt_len.w1": "PS_emd",
    "pkt_len.ks": "PS_ks",
    "time.w1_range": "PAT_nemd",
    "flow_len.w1": "FS_emd",
    "flow_len.ks": "FS_ks",
    "single.abs": "FS1_abs",
    "flow_bytes.ks": "FB_ks",
    "flow_duration.ks": "DUR_ks",
    "gap.ks": "IAT_ks",
    "ttl.tv": "TTL_tv",
    "tcp_flags.tv": "FLAG_tv",
    "proto_service_len.jsd": "J(pr,dp,len)_jsd",
    "len_bigram.jsd": "BIGRAM_len_jsd",
}
RATES = {
    "valid_addresses": "ipok",
    "smallest_length": "lenok",
    "syn_first": "syn1",
    "terminated": "term",
    "illegal_flags": "bad",
    "handshake": "hs",
    "port_protocol": "ports",
}
# Our tolerance: theirs are times in floating-point seconds, which round gaps to about 1e-7 s, so that
# what is equal in nanoseconds is not there.
CLOSE = {"gap.ks": 1e-3, "flow_duration.ks": 1e-3, "time.w1_range": 1e-6, "gap_autocorrelation.abs": 1e-4}


def report(path_a, path_b, *more):
    command = [program, "evaluate", "--real", path_a, "--synthetic", path_b, "--json", "--quick"]
    command += ["--no-baseline", "--splits", "1", *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def rates(records):
    """TCP-state facts as floors.py prints them, as numbers."""
    flows = peer.flows(records)
    tcp = {key: flow for key, flow in flows.items() if key[4] == 6}
    flags = [packet[9] for flow in tcp.values() for packet in flow]
    bad = [f == 0 or f & 3 == 3 or f & 6 == 6 or (f & 1 and not f & 16) for f in flags]
    shakes = []
    for key in tcp:
        back = (key[1], key[0], key[3], key[2], 6)
        if back in tcp and key < back:
            first = sorted(tcp[key] + tcp[back], key=lambda packet: packet[5])[:3]
            shakes.append([packet[9] & 0x12 for packet in first] == [2, 0x12, 0x10])
    share = lambda of: sum(map(bool, of)) / len(of) if of else None
    known = {80: 0, 443: 0, 53: 0, 22: 6, 25: 6, 21: 6, 23: 6, 110: 6, 143: 6, 445: 6, 3389: 6}
    known |= {123: 17, 161: 17, 67: 17, 68: 17, 1900: 17, 5353: 17, 137: 17, 138: 17}
    ports = []
    for r in records:
        for port in r[2:4]:
            if port in known:
                ports.append(r[4] in (6, 17) if known[port] == 0 else r[4] == known[port])
                break
    least = lambda r: 40 if r[4] == 6 else 28 if r[4] in (17, 1) else 20
    return {
        "syn1": share([flow[0][9] & 2 for flow in tcp.values()]),
        "term": share([any(p[9] & 5 for p in flow) for flow in tcp.values()]),
        "bad": share(bad),
        "hs": share(shakes),
        "lenok": share([r[6] >= least(r) for r in records]),
        "ipok": share([r[0] >> 28 != 14 and r[0] >> 24 != 255 and r[1] >> 24 != 0 for r in records]),
        "ports": share(ports),
    }


def origin(first, like_first, span):
    """Ours counts times from the real trace's beginning where the other begins within a span of it."""
    return like_first if abs(first - like_first) < span else first


def conversations(rows, key):
    return len({min(key(r), key(r)[2:4] + key(r)[:2] + key(r)[4:]) for r in rows})


def cut(rows, like, time, key):
    """Ours leaves out what is later than the real trace is long, if enough conversations are left."""
    span = time(like[-1]) - time(like[0])
    end = origin(time(rows[0]), time(like[0]), span) + span
    short = [r for r in rows if time(r) <= end + 1e-7]
    return short if conversations(short, key) >= conversations(like, key) // 2 else rows


def arrival(a, b):
    """The EMD of times on one clock, in parts of the real range."""
    return peer.nemd(a - a.min(), b - origin(b.min(), a.min(), a.max() - a.min()))


def packets():
    a = peer.loadpcap(real)
    time, key = lambda r: r[5], lambda r: (r[0], r[2], r[1], r[3], r[4])
    b = cut(peer.loadpcap(synthetic), a, time, key)
    theirs = peer.metr(a, b)
    theirs["PAT_nemd"] = arrival(*(peer.np.array([r[5] for r in side]) for side in (a, b)))
    ours = report(real, synthetic)
    found = {metric["name"]: metric["whole"] for metric in ours["metrics"]}
    rows = [(name, found.get(name), theirs[key]) for name, key in PACKETS.items()]
    gaps = abs(theirs["ACF1_real"] - theirs["ACF1_syn"])
    if not math.isnan(gaps):
        rows.append(("gap_autocorrelation.abs", found.get("gap_autocorrelation.abs"), gaps))
    for side, records in (("real", a), ("synthetic", b)):
        of = rates(records)
        for rate in ours["rates"]:
            if rate["name"] in RATES:
                rows.append((f"{rate['name']} {side}", rate[side], of[RATES[rate["name"]]]))
    return rows


def records():
    a, b = (list(csv.DictReader(open(path))) for path in (real, synthetic))
    time = lambda row: float(row["ts"])
    key = lambda row: tuple(row[name] for name in ("srcip", "srcport", "dstip", "dstport", "proto"))
    b = cut(b, a, time, key)
    column = lambda rows, name: [row[name] for row in rows]
    number = lambda rows, name: peer.np.array([float(row[name]) for row in rows])
    theirs = {
        "srcip.rank_jsd": peer.rank_jsd(column(a, "srcip"), column(b, "srcip")),
        "dstip.rank_jsd": peer.rank_jsd(column(a, "dstip"), column(b, "dstip")),
    }
    for name in ("srcport", "dstport", "proto", "type"):
        counts = [Counter(column(rows, name)) for rows in (a, b)]
        theirs[f"{name}.jsd"] = peer.jsd_ns(*counts)
    for name in ("td", "pkt", "byt"):
        x, y = number(a, name), number(b, name)
        theirs[f"{name}.w1"] = peer.W1(x, y)
        theirs[f"{name}.ks"] = peer.ks_2samp(x, y).statistic
        theirs[f"{name}.w1_log"] = peer.qemd(x, y)
    x, y = number(a, "ts"), number(b, "ts")
    theirs["time.w1_range"] = arrival(x, y)
    joint = lambda rows: Counter(
        (
            row["proto"],
            row["dstport"] if int(row["dstport"]) < 1024 else "e",
            row["type"],
            int(math.log2(float(row["pkt"]) + 1)),
            int(math.log2(float(row["byt"]) + 1)),
        )
        for row in rows
    )
    theirs["joint.jsd"] = peer.jsd_ns(joint(a), joint(b))
    logs = lambda rows: peer.np.corrcoef([peer.np.log1p(number(rows, c)) for c in ("td", "pkt", "byt")])
    theirs["pearson_log.abs"] = peer.np.abs(logs(a) - logs(b)).sum() / 6
    ours = report(real, synthetic, "--config", CONFIG)
    found = {metric["name"]: metric["whole"] for metric in ours["metrics"]}
    rows = [(name, found.get(name), value) for name, value in theirs.items()]
    least = {"TCP": 40, "UDP": 28}
    for side, table in (("real", a), ("synthetic", b)):
        ok = lambda k, n, low: low * k <= n <= 65535 * k
        fine = [ok(float(r["pkt"]), float(r["byt"]), least.get(r["proto"], 20)) for r in table]
        [rate] = [rate for rate in ours["rates"] if rate["name"] == "bytes_of_packets"]
        rows.append((f"bytes_of_packets {side}", rate[side], sum(fine) / len(fine)))
    return rows


CONFIG = __file__.rsplit("/", 3)[0] + "/configs/netflow.json"
with contextlib.redirect_stderr(io.StringIO()):
    compared = records() if real.endswith(".csv") else packets()
wrong = 0
for name, ours, theirs in compared:
    if ours is None and theirs is None:
        continue
    near = CLOSE.get(name, 1e-9)
    fine = ours is not None and theirs is not None and abs(ours - theirs) <= near * max(1, abs(theirs))
    wrong += not fine
    print(f"{'ok ' if fine else 'BAD'} {name:32} {ours!r:24} {theirs!r}")
print(f"{len(compared) - wrong} agree, {wrong} do not")
sys.exit(wrong > 0)
