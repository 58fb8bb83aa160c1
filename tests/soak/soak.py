#!/usr/bin/env python3
"""Sends for ten minutes between two network namespaces of its own, and checks what must hold however long a run is:
every packet that was sent came, the rate is what was asked for, memory does not grow, lateness does not drift.

    sudo tests/soak/soak.py --bundle model.ns                    ten minutes at 200,000 packets/s
    sudo tests/soak/soak.py --bundle model.ns --seconds 60       a shorter one
    sudo tests/soak/soak.py --rate 20000 --seconds 30            with the golden bundle, which is slower

Needs root, `ip`, and a release build of ns-replay. Exit code 0 if all of it holds, 1 if not.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIRE = "soak0"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def counters(namespace, column):
    """What `WIRE` has counted: column 1 is packets received, 3 those it dropped."""
    text = subprocess.run(["ip", "netns", "exec", namespace, "cat", "/proc/net/dev"],
                          check=True, capture_output=True, text=True).stdout
    line = next(line for line in text.splitlines() if line.strip().startswith(WIRE + ":"))
    return int(line.split(":")[1].split()[column])


def resident_mib(pid, before):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = next((line for line in text.splitlines() if line.startswith("VmRSS:")), None)
    # Without it, it has just ended.
    return int(found.split()[1]) / 1024 if found else before


def soak(options, sender, receiver):
    command = ["ip", "netns", "exec", sender, options.program, "--bundle", options.bundle, "--iface", WIRE, "--json",
               "--pps", str(options.rate), "--duration", f"{options.seconds}s", "--oversize", "truncate",
               "--threads", str(options.threads), "--seed", "1"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seconds, report = [], None
    for line in run.stdout:
        line = json.loads(line)
        if line["event"] == "report":
            report = line
            continue
        # `ip netns exec` becomes the program, so this is its own process.
        seconds.append((line, resident_mib(run.pid, seconds[-1][1] if seconds else 0.0)))
        if len(seconds) % 10 == 0:
            late = line["lateness"] or {"median_us": 0, "p99_us": 0}
            print(f"{line['elapsed_s']:6.0f} s  {line['packets']:12,} packets  {line['packets_per_s']:9,.0f}/s  late by "
                  f"{late['median_us']:.1f} us, 99% {late['p99_us']:.1f} us  {seconds[-1][1]:.0f} MiB", flush=True)
    return run.wait(), seconds, report, counters(receiver, 1), counters(receiver, 3)


def check(options, code, seconds, report, came, dropped_there):
    """What must hold, each with whether it does."""
    yield f"exit code {code}", code == 0
    if report is None or len(seconds) < 4:
        yield "a report, and some seconds before it", False
        return
    sent = report["records"]
    yield f"{sent:,} packets sent, {came:,} came, {dropped_there} of them dropped there", sent == came
    interface = report["interfaces"][0]
    yield f"the interface counted {interface['counted']:,}", interface["counted"] == sent and interface["lost"] == 0
    yield f"{report['dropped']} dropped", report["dropped"] == 0
    expected = options.rate * options.seconds
    # The clock begins with the program, the packets a few milliseconds after it.
    allowed = 0.0002 * expected + 0.02 * options.rate
    yield f"mean rate off by {100 * (sent / expected - 1):+.4f}%", abs(sent - expected) <= allowed
    quarter = len(seconds) // 4
    early, late = (sorted(memory for _, memory in part)[len(part) // 2] for part in (seconds[quarter:2 * quarter], seconds[-quarter:]))
    yield f"memory {early:.0f} MiB in the second quarter, {late:.0f} MiB in the last", late <= 1.05 * early + 2 and late < 200

    def median_lateness(part):
        return sorted(line["lateness"]["median_us"] for line, _ in part if line["lateness"])[quarter // 2]

    early, late = median_lateness(seconds[quarter:2 * quarter]), median_lateness(seconds[-quarter:])
    yield f"late by {early:.1f} us in the second quarter, {late:.1f} us in the last (medians)", late <= early + 100
    causes = ", ".join(f"{cause} {report['lateness'][cause]:,}" for cause in ("starved", "blocked", "woken_late"))
    yield f"more than 100 us late: {causes}", True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=str(ROOT / "tests/golden/packets-1.ns"))
    parser.add_argument("--program", default=str(ROOT / "target/release/ns-replay"))
    parser.add_argument("--rate", type=int, default=200_000, help="packets a second")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("skipped: needs root, for network namespaces")
    sender, receiver = (f"ns-soak-{os.getpid()}-{side}" for side in "ab")
    try:
        ip("netns", "add", sender)
        ip("netns", "add", receiver)
        ip("-n", sender, "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", receiver)
        for side in (sender, receiver):
            # Nothing of the system's own between our packets.
            ip("netns", "exec", side, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            ip("-n", side, "link", "set", WIRE, "up")
        results = list(check(options, *soak(options, sender, receiver)))
    finally:
        for side in (sender, receiver):
            subprocess.run(["ip", "netns", "del", side], check=False, stderr=subprocess.DEVNULL)
    for what, holds in results:
        print("ok  " if holds else "FAIL", what)
    sys.exit(0 if all(holds for _, holds in results) else 1)


if __name__ == "__main__":
    main()
