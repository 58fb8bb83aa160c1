#!/usr/bin/env python3
"""What each knob is worth: trains with one knob turned at a time, at equal CPU minutes, and writes the
tables of docs/quality.md.

usage: quality.py --data FOLDER [--minutes 1] [--only NAME,...] [--traces NAME,...] [--seeds N] [--report]

Real traces, by default two captures, are cut into halves that share no flow. A model is fitted to one half
with the ready configuration and one knob of it changed, and judged by the other half, which it has not seen. Every run is given the same CPU time on one thread: what an iteration costs is measured first, then
as many are done as the time buys, so that what else runs on the machine hardly matters. What is done
already is not done again: stop the script whenever you like, and run it again to go on. Needs the release
programs and ONNX Runtime, which `./run quality` builds first.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Name: file below the data folder, configuration.
TRACES = {
    "wits-atm-2000": ("pcap/wits-atm-2000.pcap", ROOT / "configs/pcap.json"),
    "iot-sentinel-20k": ("pcap/iot-sentinel-20k.pcap", ROOT / "configs/pcap.json"),
    "do-sensor-3day-20k": ("netflow/do-sensor-3day-20k.ugr.csv", ROOT / "configs/netflow.json"),
}
CAPTURES = "wits-atm-2000,iot-sentinel-20k"


def attributes(layers, units):
    return {"generator_attribute_num_layers": layers, "generator_attribute_num_units": units}


def critics(layers, units):
    return {
        f"{prefix}discriminator_num_{what}": value
        for prefix in ("", "attr_")
        for what, value in (("layers", layers), ("units", units))
    }


def rates(rate):
    return {"g_lr": rate, "d_lr": rate, "attr_d_lr": rate}


# What the keys that a ready configuration leaves out are: NetShare's defaults.
UNSAID = {
    **attributes(5, 512),
    **critics(5, 512),
    "generator_feature_num_units": 100,
    "gp_at": "interpolate",
    "noise_draw": "per_iteration",
    "discretize": "argmax",
}
# Knobs, and how their values are shown.
KNOBS = {
    "attribute generator": "{generator_attribute_num_layers} x {generator_attribute_num_units}",
    "critics": "{discriminator_num_layers} x {discriminator_num_units}",
    "all but the LSTM": "{generator_attribute_num_layers} x {generator_attribute_num_units}, "
    "critics {discriminator_num_layers} x {discriminator_num_units}",
    "LSTM": "{generator_feature_num_units}",
    "discretize": "{discretize}",
    "gp_at": "{gp_at}",
    "generator_ema": "{generator_ema}",
    "learning rates": "{g_lr:g}",
    "batch_size": "{batch_size}",
    "sample_len": "{sample_len}",
    "d_rounds": "{d_rounds}",
    "d_rounds, noise_draw": "{d_rounds}, {noise_draw}",
}
# Knob, and keys of model.config; in the order in which they are run.
VARIANTS = {
    "base": ("", {}),
    "attributes-5x512": ("attribute generator", attributes(5, 512)),
    "critics-5x512": ("critics", critics(5, 512)),
    "large": ("all but the LSTM", {**attributes(5, 512), **critics(5, 512)}),
    "tiny": ("all but the LSTM", {**attributes(3, 128), **critics(3, 128)}),
    "attributes-3x128": ("attribute generator", attributes(3, 128)),
    "rate-1e-3": ("learning rates", rates(1e-3)),
    "rate-2e-4": ("learning rates", rates(2e-4)),
    "batch-50": ("batch_size", {"batch_size": 50}),
    "batch-200": ("batch_size", {"batch_size": 200}),
    "sample": ("discretize", {"discretize": "sample"}),
    "rounds-3": ("d_rounds", {"d_rounds": 3}),
    "rounds-3-anew": ("d_rounds, noise_draw", {"d_rounds": 3, "noise_draw": "per_round"}),
    "gp-fake": ("gp_at", {"gp_at": "fake"}),
    "ema-0": ("generator_ema", {"generator_ema": 0}),
    "sample-len-10": ("sample_len", {"sample_len": 10}),
    "sample-len-1": ("sample_len", {"sample_len": 1}),
    "lstm-64": ("LSTM", {"generator_feature_num_units": 64}),
    "critics-4x256": ("critics", critics(4, 256)),
    "lstm-32": ("LSTM", {"generator_feature_num_units": 32}),
    "ema-0.999": ("generator_ema", {"generator_ema": 0.999}),
    "batch-400": ("batch_size", {"batch_size": 400}),
    "sample-len-20": ("sample_len", {"sample_len": 20}),
    "rate-5e-5": ("learning rates", rates(5e-5)),
}
# Seeds of the configuration as it is: how much a run differs from its like.
BASE_SEEDS = 3
CALIBRATION_ITERATIONS = 30
REPLAYED = 300_000
# Two-sided 95% quantiles of Student's t by degrees of freedom.
T95 = [math.nan, 12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12]
BEGIN, END = "<!-- tables: written by ./run quality -->", "<!-- end of the tables -->"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--data", type=pathlib.Path, help="folder of the traces")
parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/quality")
parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "target/release")
parser.add_argument("--minutes", type=float, default=1, help="CPU minutes of a training, at most 4")
parser.add_argument("--only", default="", help="variants, by name; all if not given")
parser.add_argument("--traces", default=CAPTURES, help=f"of {', '.join(TRACES)}")
parser.add_argument("--seeds", type=int, default=1, help="runs of each variant")
parser.add_argument("--replay", action="store_true", help="measure only what replay costs, of the bundles that are there")
parser.add_argument("--report", action="store_true", help="run nothing, write the tables of what is done")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/quality.md")
options = parser.parse_args()


def fail(message, hint):
    sys.exit(f"error: {message}\nhint: {hint}")


def run(name, *arguments):
    """Runs a program of ours and returns its output and CPU seconds; its errors end the script."""
    command = [str(options.programs / name), *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{err.read().decode()}")
        return out.read().decode(), usage.ru_utime + usage.ru_stime


def save(path, value):
    part = path.with_name(f".part-{path.name}")
    part.write_text(json.dumps(value, indent=1))
    part.rename(path)


def ending(trace):
    return pathlib.Path(TRACES[trace][0]).suffix


def fields(trace):
    """A table's columns must be told; a capture's need not."""
    return ["--config", TRACES[trace][1]] if ending(trace) == ".csv" else []


def halves(trace):
    folder = options.work / trace / "halves"
    if not (folder / f"test{ending(trace)}").exists():
        run("ns-train", "split", "--input", options.data / TRACES[trace][0], "--by", "flow", "--parts", "0.5,0.5",
            "--out", folder, *fields(trace))
    return folder / f"train{ending(trace)}", folder / f"test{ending(trace)}"


def configuration(trace, keys, iterations):
    """The ready configuration with these keys of model.config, for so many iterations."""
    text = re.sub(r"^\s*//.*$", "", TRACES[trace][1].read_text(), flags=re.MULTILINE)
    config = json.loads(text)
    model = config["model"]["config"]
    model.update(keys)
    model.pop("epochs", None)
    model["iteration"] = iterations
    return config


def settings(trace, keys):
    """The same with every knob said, so that runs can be compared by it."""
    model = {**UNSAID, **configuration(trace, keys, 0)["model"]["config"]}
    model.pop("iteration")
    return model


def measure(trace, name, seed, calibrations):
    """Calibrates, trains, replays and judges; returns the figures."""
    train, test = halves(trace)
    folder = options.work / trace / f"{name}-{seed}-{options.minutes:g}min"
    folder.mkdir(parents=True, exist_ok=True)

    def fit(iterations, out):
        config = folder / f"{iterations}.json"
        config.write_text(json.dumps(configuration(trace, VARIANTS[name][1], iterations), indent=1))
        arguments = ["--seed", seed, "--threads", 1, "--device", "cpu", "--quiet", "--config", config]
        cpu = run("ns-train", "train", "--input", train, "--out", out, "--model", "doppelganger", *arguments)[1]
        config.unlink()
        return cpu

    bundle = folder / "model.ns"
    if (trace, name) not in calibrations:
        none = fit(0, bundle)
        some = fit(CALIBRATION_ITERATIONS, bundle)
        calibrations[trace, name] = none, (some - none) / CALIBRATION_ITERATIONS
    none, estimated = calibrations[trace, name]
    iterations = max(1, round(options.minutes * 60 / estimated))
    cpu = fit(iterations, bundle) - none

    synthetic = folder / f"synthetic{ending(trace)}"
    run("ns-replay", "--bundle", bundle, f"--{synthetic.suffix[1:]}", synthetic, "--seed", 1, "--quiet")

    document = run("ns-train", "evaluate", "--real", test, "--train", train, "--synthetic", synthetic,
        *fields(trace), "--json", "--quick", "--no-baseline", "--quiet")[0]
    judged = json.loads(document)
    summary = judged["summary"]
    ratios = [metric["r"] for metric in judged["metrics"] if metric["r"] is not None]
    synthetic.unlink()
    return {
        "iterations": iterations,
        "cpu_s": cpu,
        "ms": 1000 * cpu / iterations,
        "median_r": summary["median_r"],
        "p95_r": summary["p95_r"],
        # Of all metrics alike, so it moves less by chance than the median does.
        "mean_r": math.exp(statistics.fmean(math.log(max(r, 0.01)) for r in ratios)),
        "broken": len(summary["broken"]),
        **replay(bundle),
    }


def replay(bundle):
    """What a million records cost to generate, the start left out; the least of three times."""

    def generate(records):
        arguments = ["--null", "--threads", 1, "--seed", 1, "--json", "--packets", records]
        out, cpu = run("ns-replay", "--bundle", bundle, *arguments)
        return cpu, json.loads(out)

    start = min(generate(1000)[0] for _ in range(3))
    runs = [generate(REPLAYED) for _ in range(3)]
    report = runs[0][1]
    return {
        "replay_s": 1e6 * (min(cpu for cpu, _ in runs) - start) / (report["records"] - 1000),
        "records_a_flow": report["records"] / report["flows"],
    }


def traces():
    names = [name for name in options.traces.split(",") if name]
    for name in names:
        if name not in TRACES:
            fail(f"`{name}` is no trace", f"one of {', '.join(TRACES)}")
        if not (options.data / TRACES[name][0]).exists():
            fail(f"no {TRACES[name][0]} in {options.data}", "name the folder of the traces with --data")
    return names


def variants():
    names = [name for name in options.only.split(",") if name] or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            fail(f"`{name}` is no variant", f"one of {', '.join(VARIANTS)}")
    return names


def measure_all(path):
    """Fills the file of results. A run is done again when its program or configuration has changed."""
    program = hashlib.sha256((options.programs / "ns-train").read_bytes()).hexdigest()[:12]
    results = json.loads(path.read_text()) if path.exists() else {}
    calibrations = {}
    base = options.seeds if options.only else max(options.seeds, BASE_SEEDS)
    for name in variants():
        for seed in range(1, (base if name == "base" else options.seeds) + 1):
            for trace in traces():
                key = f"{trace} {name} {seed}"
                made = {"program": program, "config": settings(trace, VARIANTS[name][1])}
                done = results.get(key)
                if done is None or done["made"] != made:
                    done = results[key] = {"made": made, **measure(trace, name, seed, calibrations)}
                    save(path, results)
                print(f"{key}: {done['iterations']} iterations, median R {done['median_r']:.2f}, "
                    f"mean R {done['mean_r']:.2f}, replay {done['replay_s']:.1f} s a million records", flush=True)


def replay_all(path):
    """Measures the bundles that are there once more, one after another."""
    results = json.loads(path.read_text())
    for key, done in results.items():
        trace, name, seed = key.split(" ")
        if trace not in traces() or name not in variants():
            continue
        bundle = options.work / trace / f"{name}-{seed}-{options.minutes:g}min" / "model.ns"
        done.update(replay(bundle) if bundle.exists() else {"replay_s": None})
        save(path, results)
        print(f"{key}: {done['replay_s']}", flush=True)


def logs(runs, figure):
    return [math.log(run[figure]) for run in runs]


def shown(knob, trace, run):
    """A knob's value in a run, and whether the ready configuration has it now."""
    value, now = (KNOBS[knob].format(**of) for of in (run["made"]["config"], settings(trace, {})))
    return value + (" (default)" if value == now else "")


def noise(of, figure):
    """The standard deviation of a figure's logarithm between seeds, over all variants with several."""
    several = [logs(runs, figure) for runs in of.values() if len(runs) > 1]
    degrees = sum(len(values) - 1 for values in several)
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return (math.sqrt(squares / degrees), degrees) if degrees else (math.nan, 0)


def tables(results, minutes):
    """A table for each trace; what differs from the configuration as it is by more than seeds do stands bold."""
    parts = [f"## CPU minutes a run: {minutes}\n"]
    for trace in TRACES:
        of = {}
        for name in VARIANTS:
            of[name] = [results[key] for key in sorted(results) if key.rsplit(" ", 1)[0] == f"{trace} {name}"]
        of = {name: runs for name, runs in of.items() if runs}
        if "base" not in of:
            continue
        figures = ("median_r", "mean_r", "p95_r")
        spread = {figure: noise(of, figure) for figure in figures}
        rows = []
        for name, runs in of.items():
            knob = VARIANTS[name][0]
            row = [knob, shown(knob, trace, runs[0]), shown(knob, trace, of["base"][0])] if knob else ["none", "", ""]
            row.append(str(len(runs)))
            for figure in figures:
                value = math.exp(statistics.fmean(logs(runs, figure)))
                base = math.exp(statistics.fmean(logs(of["base"], figure)))
                sd, degrees = spread[figure]
                least = T95[min(degrees, len(T95) - 1)] * sd * math.sqrt(1 / len(runs) + 1 / len(of["base"]))
                beyond = name != "base" and abs(math.log(value / base)) > least
                row.append(f"**{value:.2f}**" if beyond else f"{value:.2f}")
            for figure, digits in (("broken", 0), ("iterations", 0), ("ms", 1), ("records_a_flow", 1), ("replay_s", 1)):
                values = [run[figure] for run in runs if run[figure] is not None]
                row.append(f"{statistics.fmean(values):.{digits}f}" if values else "–")
            rows.append(row)
        header = ["knob", "value", "base", "runs", "median R", "mean R", "95th", "broken", "iterations", "ms an iteration",
            "records a flow", "replay, CPU s a million records"]
        lines = [f"### {trace}\n", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        degrees = spread["median_r"][1]
        factors = ", ".join(
            f"{words} {math.exp(spread[figure][0]):.2f}"
            for figure, words in (("median_r", "median R"), ("mean_r", "mean R"), ("p95_r", "95th"))
        )
        lines.append(f"\nOne standard deviation between seeds is a factor of: {factors} ({degrees} degrees of freedom).\n"
            if degrees else "\nOne seed a row: how much seeds differ is not known here.\n")
        parts.append("\n".join(lines))
    return "\n".join(parts)


def report():
    """Puts the tables between their marks; the words around them are people's."""
    files = sorted(options.work.glob("results-*min.json"), key=lambda path: float(path.name[8:-8]))
    found = {path.name[8:-8]: json.loads(path.read_text()) for path in files}
    if not found:
        fail(f"no results in {options.work}", "run it without --report first")
    text = options.out.read_text() if options.out.exists() else f"# Quality knobs\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    written = "\n".join(tables(results, minutes) for minutes, results in found.items())
    options.out.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}")
    print(f"wrote {options.out}")


if not options.report:
    if not 0 < options.minutes <= 4:
        fail(f"--minutes is {options.minutes:g}", "more than 0, at most 4")
    if options.data is None:
        fail("--data is not given", "name the folder of the traces")
    options.data = options.data.resolve()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / f"results-{options.minutes:g}min.json"
    replay_all(path) if options.replay else measure_all(path)
report()
