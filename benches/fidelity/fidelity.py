#!/usr/bin/env python3
"""Where we stand: trains, generates and evaluates on several real traces, and writes docs/fidelity.md.

usage: fidelity.py --data FOLDER [--minutes 6] [--longer 3,30] [--jobs 2] [--work target/fidelity] [--only NAME]

Each trace is cut into halves that share no flow. A model is fitted to one half, on one thread and
for at most so many minutes, and judged by the other, which it has not seen. What is done already is
not done again: stop the script whenever you like, and run it again to go on. Needs the release
programs and ONNX Runtime, which `./run fidelity` builds first.
"""
import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
# Name, file below the data folder, kind.
TRACES = [
    ("wits-atm-2000", "pcap/wits-atm-2000.pcap", "pcap"),
    ("iot-sentinel-20k", "pcap/iot-sentinel-20k.pcap", "pcap"),
    ("do-sensor-3day-20k", "netflow/do-sensor-3day-20k.ugr.csv", "csv"),
    ("caida-small", "seed-examples/caida-small.pcap", "pcap"),
]
# Those on which more time is tried.
LONGER = ["wits-atm-2000", "do-sensor-3day-20k"]
CONFIGS = {
    ("pcap", "autoregressive"): None,
    ("csv", "autoregressive"): ROOT / "configs/netflow.json",
    ("pcap", "ours"): None,
    ("csv", "ours"): ROOT / "configs/netflow.json",
    ("pcap", "netshare"): HERE / "netshare-pcap.json",
    ("csv", "netshare"): HERE / "netshare-netflow.json",
}
# An autoregressive model ends by itself.
GAN = ["--model", "doppelganger", "--epochs", "100000"]
MODEL = {"autoregressive": ["--model", "autoregressive"], "ours": GAN, "netshare": GAN}
LABELS = {
    "itself": "the fitted half itself",
    "autoregressive": "autoregressive",
    "ours": "DoppelGANger, our encodings",
    "netshare": "DoppelGANger, NetShare's encodings",
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--data", type=pathlib.Path, required=True)
parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/fidelity")
parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "target/release")
parser.add_argument("--minutes", type=float, default=6)
parser.add_argument("--longer", default="", help="minutes, such as 3,30, that DoppelGANger is trained for on two traces more")
parser.add_argument("--jobs", type=int, default=2)
parser.add_argument("--only", default="")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/fidelity.md")
options = parser.parse_args()
options.data = options.data.resolve()


def run(name, *arguments):
    """Runs a program of ours; its errors end the script with what it said."""
    command = [options.programs / name, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def made(target, make):
    """Makes a file unless it is there; it has its name only when it is whole."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".part-{target.name}")
        make(part)
        part.rename(target)
    return target


def halves(trace, path, kind):
    folder = options.work / trace / "halves"
    ending = "pcap" if kind == "pcap" else "csv"
    if not (folder / f"test.{ending}").exists():
        config = [] if kind == "pcap" else ["--config", CONFIGS[kind, "ours"]]
        run("ns-train", "split", "--input", path, "--by", "flow", "--parts", "0.5,0.5", "--out", folder, *config)
    return folder / f"train.{ending}", folder / f"test.{ending}"


def one(trace, path, kind, encodings, minutes):
    train, test = halves(trace, path, kind)
    if encodings == "itself":
        return judged(trace, kind, encodings, options.work / trace / encodings, (train, test), train), 0
    folder = options.work / trace / f"{encodings}-{minutes:g}min"
    config = CONFIGS[kind, encodings]
    with_config = ["--config", config] if config else []
    # What a stop left of a training is begun anew: it has its minutes from the first.
    fit = ["--seed", "1", "--threads", "1", "--device", "cpu", "--max-minutes", str(minutes), "--overwrite"]
    bundle = made(
        folder / "model.ns",
        lambda out: run("ns-train", "train", "--input", train, "--out", out, *fit, *with_config, *MODEL[encodings], "-q"),
    )
    flag, ending = ("--pcap", "pcap") if kind == "pcap" else ("--csv", "csv")
    synthetic = made(
        folder / f"synthetic.{ending}",
        lambda out: run("ns-replay", "--bundle", bundle, flag, out, "--seed", "1", "--quiet"),
    )
    report = judged(trace, kind, encodings, folder, (train, test), synthetic)
    with zipfile.ZipFile(bundle) as parts:
        return report, json.loads(parts.read("manifest.json"))["provenance"]["iterations"]


def judged(trace, kind, encodings, folder, halves, synthetic):
    train, test = halves
    fields = ["--config", CONFIGS[kind, "ours"]] if kind == "csv" else []
    # An evaluation is as good as the program that made it.
    version = hashlib.sha256((options.programs / "ns-train").read_bytes()).hexdigest()[:12]
    report = made(
        folder / f"evaluation-{version}.json",
        lambda out: out.write_text(
            run("ns-train", "evaluate", "--real", test, "--train", train, "--synthetic", synthetic, *fields, "--json", "--quiet")
        ),
    )
    report = json.loads(report.read_text())
    print(f"{trace}, {folder.name}: {report['summary']['median_r']:.2f}", flush=True)
    return report


def number(value, digits=2):
    return "–" if value is None else f"{value:.{digits}f}"


def small(value):
    return "–" if value is None else f"{value:.4g}"


def worst(of, count=4):
    ratios = sorted(((m["r"], m["name"]) for m in of["metrics"] if m["r"] is not None), reverse=True)
    return ", ".join(f"`{name}` {ratio:.1f}" for ratio, name in ratios[:count])


def longer_table(found):
    rows = [
        [trace, f"{minutes:g}", str(iterations), number(of["summary"]["median_r"]), number(of["summary"]["p95_r"]),
         number(of["classifier"]["auc"]), worst(of)]
        for (trace, minutes), (of, iterations) in found.items()
    ]
    header = ["trace", "minutes", "iterations", "median R", "95th", "AUC", "farthest, by R"]
    return "## DoppelGANger, our encodings, by time\n\n" + table(header, rows)


def summary_row(trace, label, of, iterations):
    s, rest = of["summary"], of
    privacy = (rest.get("privacy") or {}).get("closest") or {}
    return [
        trace, label, str(iterations) if iterations else "–", number(s["median_r"]), number(s["p95_r"]), number(s["baseline_median_r"]),
        number(s["baseline_p95_r"]), f"{100 * s['beats_baseline']:.0f}%", number(rest["classifier"]["auc"]),
        number(privacy.get("nearer_to_train")),
    ]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def document(found, longer):
    parts = [INTRODUCTION.format(minutes=f"{options.minutes:g}")]
    rows = [summary_row(trace, LABELS[encodings], of, iterations)
        for (trace, encodings), (of, iterations) in found.items()]
    header = ["trace", "model", "iterations", "median R", "95th", "Markov median R", "95th", "nearer than Markov", "AUC", "nearer to train"]
    parts.append("## All traces\n\n" + table(header, rows))
    if longer:
        parts.append(longer_table(longer))
    for trace, _, _ in TRACES:
        mine = {e: found[trace, e][0] for e in LABELS if (trace, e) in found}
        if not mine:
            continue
        first = mine["autoregressive"]
        sides = f"{first['real']['records']} records of {first['real']['flows']} flows that were not trained on"
        names = [metric["name"] for metric in first["metrics"]]
        of = {e: {m["name"]: m for m in report["metrics"]} for e, report in mine.items()}
        rows = []
        for name in names:
            base = of["autoregressive"][name]
            row = [f"`{name}`", base["group"], small(base["floor"])]
            for e in mine:
                metric = of[e].get(name)
                row += [small(metric["value"]), number(metric["r"])] if metric else ["–", "–"]
            rows.append(row + [number(base["baseline_r"])])
        header = ["metric", "group", "floor"]
        for e in mine:
            header += [LABELS[e], "R"]
        parts.append(f"## {trace}\n\n{sides}.\n\n" + table(header + ["Markov R"], rows))
        rates = [
            [rate["label"], *(f"{100 * rate[s]:.2f}%" if rate[s] is not None else "–" for s in ("real", "synthetic", "baseline"))]
            for rate in first["rates"]
        ]
        if rates:
            parts.append("Rates, autoregressive:\n\n" + table(["rate", "real", "synthetic", "Markov"], rates))
    return "\n".join(parts)


INTRODUCTION = """# Fidelity: where we stand

Written by `./run fidelity`; do not edit. Each trace is cut into halves that share no flow. A model is
fitted to one half, on one CPU thread for at most {minutes} minutes, one seed, and judged by the other half, which it has
not seen. The Markov chain is fitted to the same half; "the fitted half itself" is that half judged as if it had been generated: what pure
memory would give. R is a distance over its noise floor; 1 is as near as the trace is
to itself ([README](../README.md#how-good-is-it)). "NetShare's encodings" are those of its example configurations
(bits, word vectors, numbers scaled to 0..1, one direction a flow) in the same networks with the same training, so that
the two differ in nothing else. AUC is of a classifier that tells real from synthetic flows (0.5: it cannot); "nearer to
train" is the chance that a flow that was trained on has a nearer synthetic flow than one that was not (0.5: nothing
was memorised). NetShare's own program, trained for 22 and 36 CPU minutes, has a median R of 4.97 on wits-atm-2000 and 5.29 on do-sensor-3day-20k
(measured apart from this page, with the same distances). Minutes are those of two shared cores: the figures move by some tenths from run to run.
"""

chosen = [trace for trace in TRACES if options.only in trace[0]]
for trace in chosen:
    if not (options.data / trace[1]).exists():
        sys.exit(f"error: no {trace[1]} in {options.data}\nhint: name the folder of the traces with --data")
    halves(trace[0], options.data / trace[1], trace[2])
with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    # What takes longest is begun first.
    longer = {
        (trace, minutes): pool.submit(one, trace, options.data / path, kind, "ours", minutes)
        for minutes in sorted(map(float, filter(None, options.longer.split(","))), reverse=True)
        for trace, path, kind in chosen
        if trace in LONGER
    }
    jobs = {
        (trace, encodings): pool.submit(one, trace, options.data / path, kind, encodings, options.minutes)
        for trace, path, kind in chosen
        for encodings in LABELS
    }
    found = {key: job.result() for key, job in jobs.items()}
    longer = {key: job.result() for key, job in sorted(longer.items())}
options.out.write_text(document(found, longer))
print(f"wrote {options.out}")
