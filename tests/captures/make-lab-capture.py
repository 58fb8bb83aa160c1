#!/usr/bin/env python3
"""Make lab.pcap: headers of real programs talking on a small closed network.

The script builds a laboratory of network namespaces (one bridge, four servers,
four near clients, and two far clients behind a router), starts ordinary
servers in it (nginx, dnsmasq, chronyd, sshd, iperf3 and three small servers of
its own), lets ordinary clients use them (curl, dig, ssh, scp, ping, logger,
iperf3, ...), and writes what tcpdump sees on the bridge.

Nothing can leave the laboratory: it has no link to the machine's own network
and no route out of 10.77.0.0/16.  Namespaces, processes and scratch files are
removed at the end, also after an error or Ctrl-C.

    sudo ./make-lab-capture.py                 # writes lab.pcap beside the script
    sudo ./make-lab-capture.py --out x.pcap --seed 7 --span 100 --load 1.0
    sudo ./make-lab-capture.py --clean         # after a kill -9: remove leftovers

The choices (who does what, when, how much) follow from --seed.  The packets
also depend on the kernel's and the programs' own timing, so two runs with the
same seed are alike, not equal.
"""

import argparse
import collections
import fcntl
import glob
import heapq
import http.client
import http.server
import json
import math
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

PREFIX = "nslab"
DOMAIN = "lab.test"
SNAPLEN = 96
MTU = 1500
MIN_PACKETS, MAX_PACKETS = 10_000, 16_000
MIN_CONVERSATIONS = 400
MAX_BYTES = 2_000_000

# program -> Debian package that holds it
PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ss": "iproute2",
    "ethtool": "ethtool",
    "tcpdump": "tcpdump",
    "nginx": "nginx-light",
    "dnsmasq": "dnsmasq-base",
    "dig": "bind9-dnsutils",
    "chronyd": "chrony",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "scp": "openssh-client",
    "ssh-keygen": "openssh-client",
    "iperf3": "iperf3",
    "curl": "curl",
    "ping": "iputils-ping",
    "openssl": "openssl",
    "logger": "bsdutils",
    "unshare": "util-linux",
    "mount": "mount",
}

# Children see only this: a proxy or certificate setting of the caller's must
# not steer the clients.
CLEAN_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C",
    "TERM": "xterm",
}


class LabError(Exception):
    """Something the user can act on; printed without a traceback."""


# --------------------------------------------------------------------------
# The laboratory on paper
# --------------------------------------------------------------------------

# A wire is what lies between a host and its bridge: one-way delay and mean
# jitter in milliseconds, rate in Mbit/s, and the share of frames lost.
Wire = collections.namedtuple("Wire", "delay_ms jitter_ms rate_mbit loss")

# `system` sets the marks by which systems differ on the network: "unix" keeps
# Linux's defaults, "desktop" starts at TTL 128, uses the ports above 49152 and
# sends no TCP timestamps, "device" starts at TTL 255.
Host = collections.namedtuple("Host", "name address wire system habits")

HOSTS = [
    Host("web", "10.77.2.10", Wire(0.3, 0.05, 200, 0.0), "unix", {}),
    Host("api", "10.77.2.20", Wire(5.0, 0.5, 50, 0.0), "unix", {}),
    Host("infra", "10.77.2.30", Wire(0.2, 0.05, 100, 0.0), "device", {}),
    Host("shell", "10.77.2.40", Wire(14.0, 1.0, 20, 0.001), "unix", {}),
    # A habit's number is the mean pause between its actions in seconds.
    Host("c1", "10.77.1.11", Wire(0.4, 0.1, 100, 0.0), "unix",
         {"browse": 3.5, "lookup": 5, "telemetry": 0.7, "poll": 3, "type": 24,
          "copy": 45, "stray": 14}),
    Host("c2", "10.77.1.12", Wire(3.0, 0.5, 50, 0.0), "desktop",
         {"browse": 3, "lookup": 6, "syslog": 5, "poll": 4, "ping": 12,
          "copy": 50, "stray": 16}),
    Host("c3", "10.77.1.13", Wire(8.0, 3.0, 20, 0.002), "desktop",
         {"browse": 3, "lookup": 5, "feed": 1, "telemetry": 1.0, "ping": 14,
          "bulk": 0, "stray": 16}),
    Host("c4", "10.77.1.14", Wire(1.0, 0.2, 80, 0.0), "unix",
         {"browse": 5, "lookup": 3, "syslog": 3, "type": 20, "upload": 9,
          "bulk": 1, "stray": 12}),
    Host("r1", "10.77.8.21", Wire(2.0, 0.5, 10, 0.001), "unix",
         {"browse": 4.5, "lookup": 7, "telemetry": 1.2, "upload": 14,
          "ping": 14, "bulk": 2, "stray": 14}),
    Host("r2", "10.77.8.22", Wire(25.0, 8.0, 4, 0.005), "desktop",
         {"browse": 4.5, "lookup": 8, "feed": 1, "poll": 6, "type": 30,
          "stray": 18}),
]
ROUTER_NEAR, ROUTER_FAR = "10.77.0.1", "10.77.8.1"
ROUTER_WIRE = Wire(11.0, 1.0, 20, 0.0)
NEAR_BITS = 22  # 10.77.0.0/22: the router, 10.77.1.x and 10.77.2.x
FAR_NET = "10.77.8.0/24"
VOID_NET = "10.77.9.0/24"  # the router drops what goes here, without a word
REFUSED_NET = "10.77.10.0/24"  # the router answers "host unreachable"

ALIASES = {  # names the servers are known by
    "www": "10.77.2.10", "static": "10.77.2.10", "docs": "10.77.2.10",
    "api": "10.77.2.20", "feed": "10.77.2.20", "metrics": "10.77.2.20",
    "log": "10.77.2.20", "ns": "10.77.2.30", "time": "10.77.2.30",
    "shell": "10.77.2.40", "bulk": "10.77.2.40",
    "void": "10.77.9.5", "closed": "10.77.10.5", "gone": "10.77.8.77",
}
PORT_NAMES = {80: "http", 443: "https", 8080: "api", 7070: "feed", 22: "ssh",
              53: "dns", 123: "ntp", 514: "syslog", 5140: "telemetry",
              5201: "iperf3"}


def load_at(x):
    """The laboratory's load at the share x of the span: two busy periods."""
    def hump(centre, width):
        return math.exp(-((x - centre) / width) ** 2)
    return 0.45 + 0.8 * hump(0.28, 0.11) + 1.3 * hump(0.76, 0.09)


# --------------------------------------------------------------------------
# Wires in user space: taps joined two by two, for kernels without tc netem
# --------------------------------------------------------------------------

def open_tap(name):
    TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def run_wires(config):
    """Carry frames between tap pairs, each way with its delay, jitter, rate,
    loss and a bounded queue; never out of order."""
    rng = random.Random(config["seed"])
    ways = {}  # fd read -> the state of that direction
    for index, wire in enumerate(config["wires"]):
        wire = Wire(*wire)
        host_end, bridge_end = open_tap(f"wh{index}"), open_tap(f"wb{index}")
        for source, sink in ((host_end, bridge_end), (bridge_end, host_end)):
            ways[source] = {"sink": sink, "wire": wire, "free_at": 0.0, "last_out": 0.0}
    print("ready", flush=True)

    queue, order = [], 0
    sources = list(ways)
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, sink, frame = heapq.heappop(queue)
            try:
                os.write(sink, frame)
            except OSError:
                pass  # the far end is down or full: a lost frame
        pause = max(0.0, queue[0][0] - now) if queue else None
        for fd in select.select(sources, [], [], pause)[0]:
            way = ways[fd]
            wire = way["wire"]
            for _ in range(64):
                try:
                    frame = os.read(fd, 65536)
                except OSError:
                    break  # nothing more to read, or the end is not up yet
                now = time.monotonic()
                start = max(now, way["free_at"])
                if start - now > 0.25 or rng.random() < wire.loss:
                    continue  # a full queue (a quarter second deep), or a loss
                way["free_at"] = start + len(frame) * 8 / (wire.rate_mbit * 1e6)
                jitter = rng.expovariate(1.0) * wire.jitter_ms
                out = way["free_at"] + (wire.delay_ms + jitter) / 1000
                out = max(out, way["last_out"])
                way["last_out"] = out
                order += 1
                heapq.heappush(queue, (out, order, way["sink"], frame))


# --------------------------------------------------------------------------
# Our own servers: an HTTP interface, a push feed, telemetry, a syslog sink
# --------------------------------------------------------------------------

class ApiHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rng = random.Random("api")

    def answer(self, status, size):
        body = b'{"v":"' + b"x" * size + b'"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        time.sleep(min(0.8, self.rng.lognormvariate(-4.0, 1.0)))  # "computes"
        self.answer(200, int(min(9000, self.rng.lognormvariate(5.5, 1.2))))

    def do_PUT(self):
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            piece = self.rfile.read(min(left, 16384))
            if not piece:
                return
            left -= len(piece)
        self.answer(201, 20)

    def log_message(self, *args):
        pass


class ApiServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the plan


def serve_feed(seed):
    """Push messages of varied size to every subscriber, at uneven intervals."""
    listener = socket.create_server(("0.0.0.0", 7070))

    def push(peer, number):
        rng = random.Random(f"{seed}/feed/{number}")
        try:
            while True:
                time.sleep(min(6.0, rng.lognormvariate(-0.4, 1.0)))
                peer.sendall(b"m" * int(min(4000, rng.lognormvariate(5.0, 1.0))))
                if rng.random() < 0.04:
                    peer.close()  # the server, too, may end a conversation
                    return
        except OSError:
            pass

    number = 0
    while True:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=push, args=(peer, number), daemon=True).start()
        number += 1


def serve_telemetry(seed):
    """Acknowledge each report; now and then send settings along with it."""
    rng = random.Random(f"{seed}/telemetry")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 5140))
    while True:
        message, peer = sock.recvfrom(2048)
        size = 12 if rng.random() < 0.8 else rng.randint(60, 700)
        sock.sendto(b"a" * size, peer)
        if len(message) > 900:
            sock.sendto(b"again".ljust(rng.randint(20, 200)), peer)


def swallow_syslog():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 514))
    while True:
        sock.recv(4096)


def run_api_host(config):
    seed = config["seed"]
    for work, args in ((serve_feed, (seed,)), (serve_telemetry, (seed,)), (swallow_syslog, ())):
        threading.Thread(target=work, args=args, daemon=True).start()
    ApiServer(("0.0.0.0", 8080), ApiHandler).serve_forever()


# --------------------------------------------------------------------------
# The clients
# --------------------------------------------------------------------------

class Client:
    """One client host: a thread per habit, each with its own random stream."""

    def __init__(self, config):
        self.name = config["name"]
        self.habits = config["habits"]
        self.seed = config["seed"]
        self.work = config["work"]
        self.site = config["site"]
        self.load = config["load"]
        self.start = config["start"]  # CLOCK_MONOTONIC, common to all processes
        self.span = config["span"]

    def elapsed(self):
        return time.monotonic() - self.start

    def think(self, rng, mean):
        """Pause for a heavy-tailed time that passes faster under load.
        False when the span is over."""
        shape = 1.7
        pause = mean / self.load * (shape - 1) / shape * rng.paretovariate(shape)
        pause = min(pause, self.span / 3)
        step, at = 0.02, self.elapsed()
        while pause > 0 and at < self.span:
            pause -= step * load_at(at / self.span)
            at += step
        if at >= self.span:
            return False
        time.sleep(max(0.0, at - self.elapsed()))
        return True

    def call(self, *argv, limit=20):
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            pass

    def run(self):
        threads = []
        for habit, mean in self.habits.items():
            rng = random.Random(f"{self.seed}/{self.name}/{habit}")
            work = getattr(self, f"do_{habit}")
            threads.append(threading.Thread(target=work, args=(rng, mean)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # -- web ---------------------------------------------------------------

    def do_browse(self, rng, mean):
        while self.think(rng, mean):
            scheme = rng.choices(["http", "https"], [5, 5])[0]
            host = rng.choice(["www", "www", "static", "docs"])
            base = f"{scheme}://{host}.{DOMAIN}"
            curl = ["curl", "-s", "--cacert", f"{self.work}/tls.crt"]
            if scheme == "https":
                curl += rng.choice([["--http1.1"], ["--http1.1", "--tls-max", "1.2"], ["--http2"]])
            page = rng.choice(self.site["pages"])
            urls = [f"{base}/{name}" for name in page]
            manner = rng.choices(
                ["one connection", "one each", "side by side", "head", "unchanged",
                 "missing", "gives up", "slow reader"],
                [35, 12, 16, 7, 8, 7, 8, 7])[0]
            if manner == "one connection":
                self.call(*curl, *urls)
            elif manner == "one each":
                for url in urls[:4]:
                    self.call(*curl, "-H", "Connection: close", url)
                    time.sleep(rng.lognormvariate(-3.5, 1.0))
            elif manner == "side by side":
                self.call(*curl, "-Z", "--parallel-immediate", "--parallel-max", "4", *urls)
            elif manner == "head":
                self.call(*curl, "-I", urls[0])
            elif manner == "unchanged":
                self.call(*curl, "-z", "Fri, 01 Jan 2100 00:00:00 GMT", *urls)
            elif manner == "missing":
                self.call(*curl, f"{base}/no-such-{rng.randint(1, 99)}.html")
            elif manner == "gives up":  # closes with data under way: RST
                self.call(*curl, "--max-time", f"{rng.uniform(0.05, 0.3):.2f}",
                          f"{base}/{self.site['largest']}")
            else:
                self.call(*curl, "--limit-rate", f"{rng.randint(15, 60)}k",
                          f"{base}/{rng.choice(page)}")

    def do_poll(self, rng, mean):
        """Ask the HTTP interface at intervals, over connections kept for a while."""
        while self.think(rng, mean):
            connection = http.client.HTTPConnection(f"api.{DOMAIN}", 8080, timeout=10)
            try:
                for number in range(rng.randint(1, 8)):
                    connection.request("GET", f"/state?n={number}")
                    connection.getresponse().read()
                    if not self.think(rng, 1.2):
                        break
            except (OSError, http.client.HTTPException):
                pass
            connection.close()

    def do_upload(self, rng, mean):
        while self.think(rng, mean):
            size = int(min(60_000, rng.lognormvariate(8.5, 1.2)))
            path = f"{self.work}/{self.name}.upload"
            with open(path, "wb") as file:
                file.write(rng.randbytes(size))
            self.call("curl", "-s", "-T", path, f"http://api.{DOMAIN}:8080/in/{size}")

    # -- names, time, messages -----------------------------------------------

    def do_lookup(self, rng, mean):
        names = sorted(ALIASES)
        while self.think(rng, mean):
            dig = ["dig", "+tries=2", "+time=2"]
            kind = rng.choices(["a", "aaaa", "missing", "reverse", "tcp", "long", "burst", "no server"],
                               [30, 12, 14, 10, 6, 7, 10, 4])[0]
            name = f"{rng.choice(names)}.{DOMAIN}"
            if kind == "a":
                self.call(*dig, name)
            elif kind == "aaaa":
                self.call(*dig, name, "AAAA")
            elif kind == "missing":
                self.call(*dig, f"host{rng.randint(100, 99999)}.{DOMAIN}")
            elif kind == "reverse":
                self.call(*dig, "-x", rng.choice(sorted(set(ALIASES.values()))))
            elif kind == "tcp":
                self.call(*dig, "+tcp", name, f"long1.{DOMAIN}", "TXT")
            elif kind == "long":  # truncated over UDP, so dig asks again over TCP
                self.call(*dig, "+noedns", f"long{rng.randint(1, 4)}.{DOMAIN}", "TXT")
            elif kind == "burst":
                for _ in range(rng.randint(2, 6)):
                    self.call(*dig, f"{rng.choice(names)}.{DOMAIN}")
            else:  # no name server there: port unreachable
                self.call(*dig, f"@{ALIASES['shell']}", name)

    def do_syslog(self, rng, mean):
        while self.think(rng, mean):
            size = int(min(900, rng.lognormvariate(4.3, 0.8)))
            for _ in range(rng.choice([1, 1, 1, 2, 5])):
                self.call("logger", "--udp", "--server", ALIASES["log"], "--port", "514",
                          "-t", "lab", "-p", rng.choice(["user.info", "daemon.warning"]),
                          "event " * max(1, size // 6))

    def do_telemetry(self, rng, mean):
        sock = None
        left = 0
        while self.think(rng, mean):
            if left == 0:  # the program restarts now and then: a new port
                if sock:
                    sock.close()
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.settimeout(0.5)
                sock.connect((ALIASES["metrics"], 5140))
                left = int(rng.paretovariate(1.2) * 4)
            left -= 1
            try:
                sock.send(rng.randbytes(int(min(1400, 30 + rng.lognormvariate(4.6, 1.0)))))
                sock.recv(2048)
            except OSError:
                pass
        if sock:
            sock.close()

    def do_feed(self, rng, mean):
        while self.think(rng, 4 * mean):
            try:
                with socket.create_connection((f"feed.{DOMAIN}", 7070), timeout=8) as sock:
                    end = self.elapsed() + rng.paretovariate(1.1) * 7
                    while self.elapsed() < min(end, self.span):
                        if not sock.recv(8192):
                            break
                        if rng.random() < 0.3:
                            sock.sendall(b"seen\n")
            except OSError:
                pass

    # -- remote shell, files, bulk -------------------------------------------

    def ssh_options(self):
        return ["-F", "none", "-i", f"{self.work}/client_key", "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={self.work}/known_hosts",
                "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"]

    def do_type(self, rng, mean):
        """Log in and type: a key at a time, with pauses to read."""
        lines = ["ls /usr/bin | head -n 40", "uptime", "cat /etc/services | head -n 60",
                 "echo $((6*7))", "ls -l /usr/sbin | tail -n 20", "sleep 1; echo done",
                 "wc -l /etc/services", "seq 1 300"]
        while self.think(rng, mean):
            shell = subprocess.Popen(
                ["ssh", "-tt", *self.ssh_options(), f"root@shell.{DOMAIN}"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, bufsize=0)
            try:
                time.sleep(1.0)
                for line in [rng.choice(lines) for _ in range(rng.randint(1, 4))] + ["exit"]:
                    for key in line + "\n":
                        shell.stdin.write(key.encode())
                        time.sleep(min(0.5, rng.lognormvariate(-2.3, 0.6)))
                    if self.elapsed() > self.span:
                        break
                    time.sleep(min(3.0, rng.lognormvariate(-0.3, 0.6)))
                shell.stdin.close()
            except OSError:
                pass
            try:
                shell.wait(timeout=5)
            except subprocess.TimeoutExpired:
                shell.kill()
                shell.wait()

    def do_copy(self, rng, mean):
        path = f"{self.work}/{self.name}.copy"
        while self.think(rng, mean):
            with open(path, "wb") as file:
                file.write(rng.randbytes(rng.randint(8_000, 90_000)))
            there = f"root@shell.{DOMAIN}:/dev/null"
            if rng.random() < 0.5:
                self.call("scp", "-q", *self.ssh_options(), path, there)
            else:
                self.call("ssh", *self.ssh_options(), f"root@shell.{DOMAIN}",
                          f"head -c {rng.randint(8_000, 90_000)} /dev/urandom")

    def do_bulk(self, rng, turn):
        """One paced transfer per client, in turn: iperf3 serves one at a time."""
        at = self.span * (0.22 + 0.25 * turn)
        time.sleep(max(0.0, at - self.elapsed()))
        manner = [["-b", "2M", "-n", "450K"],
                  ["-R", "-b", "3M", "-n", "500K"],
                  ["-u", "-b", "900K", "-l", str(rng.randint(500, 1100)), "-t", "3"]][turn]
        self.call("iperf3", "-c", f"bulk.{DOMAIN}", *manner)

    # -- probes and mistakes -------------------------------------------------

    def do_ping(self, rng, mean):
        while self.think(rng, mean):
            name = rng.choice(["www", "api", "ns", "shell", "gone"])
            self.call("ping", "-n", "-c", str(rng.randint(2, 8)), "-i", f"{rng.uniform(0.3, 1.0):.2f}",
                      "-s", str(rng.choice([56, 56, 56, 8, 400, 1400])), "-W", "1", ALIASES[name])

    def do_stray(self, rng, mean):
        """Closed ports and absent hosts: refusals, silence, unreachable."""
        while self.think(rng, mean):
            name = rng.choices(["www", "api", "shell", "void", "closed", "gone"],
                               [5, 4, 4, 4, 2, 2])[0]
            port = rng.choice([21, 25, 110, 3306, 5432, 6379, 8443, 9000])
            try:
                socket.create_connection((ALIASES[name], port), timeout=rng.uniform(1.5, 4)).close()
            except OSError:
                pass


# --------------------------------------------------------------------------
# Building the laboratory
# --------------------------------------------------------------------------

def command(*argv, check=True):
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, env=CLEAN_ENV)
    if check and result.returncode != 0:
        reason = (result.stderr or result.stdout).strip() or f"exit status {result.returncode}"
        raise LabError(f"{' '.join(argv)}: {reason}")
    return result


def remove_namespace(name):
    """Kill what runs in the namespace (all of it ours), then delete it."""
    for _ in range(20):
        pids = command("ip", "netns", "pids", name, check=False).stdout.split()
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.1)
    command("ip", "netns", "del", name, check=False)


def our_namespaces():
    listed = command("ip", "netns", "list", check=False).stdout.splitlines()
    return [line.split()[0] for line in listed if line.startswith(PREFIX)]


class Lab:
    def __init__(self, options):
        self.options = options
        self.prefix = f"{PREFIX}{os.getpid()}-"
        self.namespaces = []
        self.children = []  # (name, Popen)
        self.work = tempfile.mkdtemp(prefix=f"{PREFIX}-")
        os.chmod(self.work, 0o755)  # nginx's workers read the pages in it

    # -- processes -----------------------------------------------------------

    def spawn(self, host, label, *argv, stdout=None):
        """Start a program in a host's namespace, under the host's own name and
        resolver settings, out of reach of the terminal's Ctrl-C."""
        setup = " && ".join([
            'echo "$LAB_HOST" > /proc/sys/kernel/hostname',
            'for f in resolv.conf nsswitch.conf hosts passwd shadow; do '
            'mount --bind "$LAB_WORK/etc/$f" "/etc/$f" || exit 1; done',
            "mount -t tmpfs tmpfs /run",  # pid files, sockets, sshd's empty folder
            "mkdir -m 755 /run/sshd",
            'exec "$@"'])
        log = open(f"{self.work}/{label}.log", "wb")
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.prefix + host, "unshare", "--uts",
             "sh", "-c", setup, "sh", *argv],
            stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, start_new_session=True,
            env={**CLEAN_ENV, "LAB_HOST": host, "LAB_WORK": self.work, "HOME": f"{self.work}/home"})
        log.close()
        self.children.append((label, child))
        return child

    def spawn_self(self, host, label, role, config, **kwargs):
        return self.spawn(host, label, sys.executable, os.path.abspath(__file__),
                          "--inside", role, json.dumps(config), **kwargs)

    def log_tail(self, label):
        try:
            with open(f"{self.work}/{label}.log", errors="replace") as file:
                return " | ".join(file.read().strip().splitlines()[-4:]) or "no message"
        except OSError:
            return "no log"

    def wait_for_listener(self, host, label, child, port, kind="-tln"):
        for _ in range(100):
            if child.poll() is not None:
                raise LabError(f"{label} did not start: {self.log_tail(label)}")
            listing = self.inside(host, "ss", kind).stdout
            if f":{port} " in listing:
                return
            time.sleep(0.1)
        raise LabError(f"{label} does not listen on port {port}: {self.log_tail(label)}")

    # -- network -------------------------------------------------------------

    def inside(self, host, *argv, check=True):
        return command("ip", "netns", "exec", self.prefix + host, *argv, check=check)

    def set_kernel(self, host, **settings):
        lines = [f"echo {value} > /proc/sys/net/{path.replace('__', '/')}"
                 for path, value in settings.items()]
        self.inside(host, "sh", "-ec", "\n".join(lines))

    def add_namespace(self, name):
        self.namespaces.append(name)  # first: a half-made one is removed too
        command("ip", "netns", "add", self.prefix + name)
        if os.path.exists("/proc/sys/net/ipv6"):
            self.set_kernel(name, ipv6__conf__all__disable_ipv6=1,
                            ipv6__conf__default__disable_ipv6=1)
        self.inside(name, "ip", "link", "set", "lo", "up")

    def choose_links(self):
        """veth with netem where the kernel has netem, else taps joined by our
        own wires, else plain veth (every delay then is the kernel's own)."""
        if self.options.links != "auto":
            return self.options.links
        self.inside("lab", "ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
        netem = self.inside("lab", "tc", "qdisc", "add", "dev", "probe0", "root",
                            "netem", "delay", "1ms", check=False)
        self.inside("lab", "ip", "link", "del", "probe0")
        if netem.returncode == 0:
            return "netem"
        return "taps" if os.path.exists("/dev/net/tun") else "plain"

    def make_links(self, ends):
        """For each (host, host's interface, switch, switch's interface, wire),
        make the two joined interfaces."""
        self.links = self.choose_links()
        if self.links == "taps":
            config = {"seed": f"{self.options.seed}/wires", "wires": [end[4] for end in ends]}
            child = self.spawn_self("lab", "wires", "wires", config, stdout=subprocess.PIPE)
            if child.stdout.readline().strip() != b"ready":
                raise LabError(f"the wires did not start: {self.log_tail('wires')}")
            made = [(f"wh{index}", f"wb{index}") for index in range(len(ends))]
        else:
            made = []
            for index in range(len(ends)):
                made.append((f"wh{index}", f"wb{index}"))
                self.inside("lab", "ip", "link", "add", made[-1][0], "type", "veth",
                            "peer", "name", made[-1][1])
        for number, ((host, host_if, switch, switch_if, wire), pair) in enumerate(zip(ends, made)):
            sides = ((host, host_if, pair[0], 0), (switch, switch_if, pair[1], 1))
            for owner, interface, temporary, side in sides:
                target = [] if owner == "lab" else ["netns", self.prefix + owner]
                self.inside("lab", "ip", "link", "set", temporary, *target, "name", interface)
                self.inside(owner, "ip", "link", "set", interface, "mtu", str(MTU),
                            "address", f"02:77:00:00:{side:02x}:{number + 1:02x}")
                # Without this the capture would hold segments of up to 64 KB
                # and unfinished checksums.  A tap has none of it to switch off.
                for feature in ("rx", "tx", "sg", "tso", "gso", "gro"):
                    done = self.inside(owner, "ethtool", "-K", interface, feature, "off", check=False)
                    if done.returncode != 0 and self.links != "taps":
                        raise LabError(f"ethtool -K {feature} off: {done.stderr.strip()}")
                if self.links == "netem":
                    netem = ["delay", f"{wire.delay_ms}ms", f"{wire.jitter_ms}ms",
                             "rate", f"{wire.rate_mbit}mbit", "limit", "500"]
                    if wire.loss:
                        netem += ["loss", f"{wire.loss * 100}%"]
                    self.inside(owner, "tc", "qdisc", "add", "dev", interface, "root", "netem", *netem)

    def build_network(self):
        for name in ["lab", "edge"] + [host.name for host in HOSTS]:
            self.add_namespace(name)
        ends = []
        for host in HOSTS:
            switch = "edge" if host.address.startswith("10.77.8.") else "lab"
            ends.append((host.name, "eth0", switch, f"p-{host.name}", host.wire))
        ends.append(("edge", "eth0", "lab", "p-edge", ROUTER_WIRE))
        self.make_links(ends)

        for switch, bridge in (("lab", "br-near"), ("edge", "br-far")):
            self.inside(switch, "ip", "link", "add", bridge, "type", "bridge", "stp_state", "0",
                        "mcast_snooping", "0")
            self.inside(switch, "ip", "link", "set", bridge, "up")
            for _, _, owner, port, _ in ends:
                if owner == switch:
                    self.inside(switch, "ip", "link", "set", port, "master", bridge, "up")

        def address(name, interface, cidr):
            self.inside(name, "ip", "link", "set", interface, "up")
            self.inside(name, "ip", "address", "add", cidr, "broadcast", "+", "dev", interface)

        address("edge", "eth0", f"{ROUTER_NEAR}/{NEAR_BITS}")
        address("edge", "br-far", f"{ROUTER_FAR}/24")
        self.inside("edge", "ip", "route", "add", "blackhole", VOID_NET)
        self.inside("edge", "ip", "route", "add", "unreachable", REFUSED_NET)
        self.set_kernel("edge", ipv4__ip_forward=1)
        for host in HOSTS:
            far = host.address.startswith("10.77.8.")
            address(host.name, "eth0", f"{host.address}/{24 if far else NEAR_BITS}")
            gateway = ROUTER_FAR if far else ROUTER_NEAR
            self.inside(host.name, "ip", "route", "add", "10.77.0.0/16", "via", gateway)
            if host.system == "desktop":
                self.set_kernel(host.name, ipv4__ip_default_ttl=128, ipv4__tcp_timestamps=0)
                self.inside(host.name, "sh", "-c",
                            "echo 49152 65535 > /proc/sys/net/ipv4/ip_local_port_range")
            elif host.system == "device":
                self.set_kernel(host.name, ipv4__ip_default_ttl=255)

    # -- files the programs need ---------------------------------------------

    def write(self, name, text, mode=0o644):
        path = f"{self.work}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def write_files(self):
        work = self.work
        os.makedirs(f"{work}/home")
        self.write("etc/resolv.conf", f"nameserver {ALIASES['ns']}\noptions timeout:2\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        # Accounts of the laboratory only; root's key is thrown away with it.
        self.write("etc/passwd", f"root:x:0:0:root:{work}/home:/bin/sh\n"
                                 "www-data:x:33:33::/nonexistent:/usr/sbin/nologin\n"
                                 "sshd:x:999:65534::/run/sshd:/usr/sbin/nologin\n"
                                 "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n")
        self.write("etc/shadow", "root:*:19000::::::\n", 0o600)

        names = "".join(f"{ip} {name}.{DOMAIN}\n" for name, ip in ALIASES.items())
        self.write("dns.hosts", names)
        long_texts = "".join(
            "txt-record=long%d.%s,%s\n" % (n, DOMAIN, ",".join(["t" * 150] * (2 + n)))
            for n in range(1, 5))
        self.write("dnsmasq.conf",
                   f"no-hosts\naddn-hosts={work}/dns.hosts\nno-resolv\nno-poll\nlocal=/test/\n"
                   f"local=/77.10.in-addr.arpa/\nlocal-ttl=60\nuser=root\npid-file=\n"
                   f"listen-address={ALIASES['ns']}\nbind-interfaces\n" + long_texts)

        self.write("time-server.conf", f"local stratum 3\nallow 10.77.0.0/16\ncmdport 0\n"
                                       f"bindcmdaddress /\npidfile {work}/time-server.pid\n")
        for index, host in enumerate(host for host in HOSTS if host.habits):
            poll = 2 + index % 3
            self.write(f"time-{host.name}.conf",
                       f"server {ALIASES['time']} iburst minpoll {poll} maxpoll {poll + 1}\n"
                       f"cmdport 0\nbindcmdaddress /\npidfile {work}/time-{host.name}.pid\n")

        command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                "-subj", f"/CN=www.{DOMAIN}",
                "-addext", f"subjectAltName=DNS:www.{DOMAIN},DNS:static.{DOMAIN},DNS:docs.{DOMAIN}",
                "-keyout", f"{work}/tls.key", "-out", f"{work}/tls.crt")
        self.write("nginx.conf", f"""
user www-data;
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    keepalive_timeout 5s;
    sendfile on;
    types {{ text/html html; }}
    client_body_temp_path {work}/nginx-body;
    proxy_temp_path {work}/nginx-proxy;
    fastcgi_temp_path {work}/nginx-fastcgi;
    uwsgi_temp_path {work}/nginx-uwsgi;
    scgi_temp_path {work}/nginx-scgi;
    server {{
        listen 80;
        listen 443 ssl http2;
        ssl_certificate {work}/tls.crt;
        ssl_certificate_key {work}/tls.key;
        root {work}/site;
    }}
}}
""")
        for key in ("host_key", "client_key"):
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", f"{work}/{key}")
        with open(f"{work}/host_key.pub") as file:
            self.write("known_hosts", f"shell.{DOMAIN},{ALIASES['shell']} {file.read()}")
        self.write("sshd.conf", f"HostKey {work}/host_key\nAuthorizedKeysFile {work}/client_key.pub\n"
                                "StrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\n"
                                "PermitRootLogin prohibit-password\nPidFile none\nMaxStartups 50\n")

        # The site: small objects mostly, a few large ones.
        rng = random.Random(f"{self.options.seed}/site")
        objects = {}
        for number in range(60):
            size = int(min(70_000, 200 + rng.lognormvariate(7.3, 1.3)))
            objects[f"o{number}.bin"] = size
            path = self.write(f"site/o{number}.bin", "")
            with open(path, "wb") as file:
                file.write(rng.randbytes(size))
        pages = []
        for number in range(15):
            self.write(f"site/page{number}.html", "<p>laboratory</p>\n" * rng.randint(10, 400))
            extras = rng.sample(sorted(objects), min(7, int(rng.paretovariate(1.0))))
            pages.append([f"page{number}.html"] + extras)
        return {"pages": pages, "largest": max(objects, key=objects.get)}

    # -- the run -------------------------------------------------------------

    def start_servers(self):
        work, seed = self.work, self.options.seed
        sshd = shutil.which("sshd", path=CLEAN_ENV["PATH"])  # insists on a full path
        waits = [
            ("web", "nginx", 443, "-tln",
             self.spawn("web", "nginx", "nginx", "-e", "stderr", "-p", work, "-c", f"{work}/nginx.conf")),
            ("infra", "dnsmasq", 53, "-tln",
             self.spawn("infra", "dnsmasq", "dnsmasq", "--keep-in-foreground", "-C", f"{work}/dnsmasq.conf")),
            # -x: chronyd must never touch the machine's clock.
            ("infra", "time server", 123, "-uln",
             self.spawn("infra", "time server", "chronyd", "-x", "-d", "-u", "root",
                        "-f", f"{work}/time-server.conf")),
            ("shell", "sshd", 22, "-tln", self.spawn("shell", "sshd", sshd, "-D", "-e", "-f", f"{work}/sshd.conf")),
            ("shell", "iperf3", 5201, "-tln", self.spawn("shell", "iperf3", "iperf3", "-s")),
            ("api", "api", 8080, "-tln", self.spawn_self("api", "api", "api", {"seed": seed})),
        ]
        for host, label, port, kind, child in waits:
            self.wait_for_listener(host, label, child, port, kind)

    def start_capture(self):
        self.raw = f"{self.work}/raw.pcap"
        self.dumper = self.spawn("lab", "tcpdump", "tcpdump", "-i", "br-near", "-s", str(SNAPLEN),
                                 "-Z", "root", "-n", "-B", "8192", "-w", self.raw)
        for _ in range(100):
            if self.dumper.poll() is not None:
                raise LabError(f"tcpdump did not start: {self.log_tail('tcpdump')}")
            if os.path.exists(self.raw) and "listening" in self.log_tail("tcpdump"):
                return
            time.sleep(0.1)
        raise LabError("tcpdump does not capture")

    def stop_capture(self):
        time.sleep(1.5)  # let the last segments come by
        # The command keeps its pid through ip, unshare and sh, so this is tcpdump.
        self.dumper.send_signal(signal.SIGINT)
        self.dumper.wait(timeout=20)
        with open(f"{self.work}/tcpdump.log") as file:
            report = file.read()
        if "\n0 packets dropped by kernel" not in report:
            raise LabError("tcpdump lost packets; run again on a quieter machine: " + report.strip())

    def run_clients(self, site):
        start = time.monotonic() + 1.0
        span = self.options.span
        clients = []
        for host in HOSTS:
            if not host.habits:
                continue
            self.spawn(host.name, f"time {host.name}", "chronyd", "-x", "-d", "-u", "root",
                       "-f", f"{self.work}/time-{host.name}.conf")
            config = {"name": host.name, "habits": host.habits, "seed": self.options.seed,
                      "work": self.work, "site": site, "load": self.options.load,
                      "start": start, "span": span}
            clients.append((host.name, self.spawn_self(host.name, f"client {host.name}", "client", config)))
        deadline = start + span + 12
        for name, child in clients:
            try:
                child.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.terminate()  # a client stuck in a last long wait
                continue
            trouble = self.log_tail(f"client {name}")
            if child.returncode != 0 or trouble != "no message":
                raise LabError(f"client {name} failed: {trouble}")
        for label, child in self.children:
            servers = ("nginx", "dnsmasq", "time server", "sshd", "iperf3", "api", "wires")
            if label in servers and child.poll() is not None:
                raise LabError(f"{label} ended early: {self.log_tail(label)}")

    def run(self):
        site = self.write_files()
        self.build_network()
        self.start_servers()
        self.start_capture()
        print(f"links: {self.links}; capturing for about {self.options.span:.0f} s ...", flush=True)
        self.run_clients(site)
        self.stop_capture()

    def close(self):
        # A second Ctrl-C must not leave half of the laboratory standing.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for name in self.namespaces:
            remove_namespace(self.prefix + name)
        for _, child in self.children:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        shutil.rmtree(self.work, ignore_errors=True)


# --------------------------------------------------------------------------
# Checking what came out
# --------------------------------------------------------------------------

def ones_sum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Tally:
    """Counts over a capture, and what is wrong with it."""

    def __init__(self, path):
        self.packets = 0
        self.by_name = collections.Counter()
        self.conversations = collections.defaultdict(set)  # name -> keys
        self.directions = collections.defaultdict(set)  # key -> sources seen
        self.longest = 0
        self.checked = 0
        self.faults = collections.Counter()
        with open(path, "rb") as file:
            data = file.read()
        self.bytes = len(data)
        if len(data) < 24 or struct.unpack_from("<I", data)[0] != 0xA1B2C3D4:
            raise LabError("the capture is no little-endian microsecond pcap file")
        if struct.unpack_from("<I", data, 20)[0] != 1:
            raise LabError("the capture's link type is not Ethernet")
        at, times = 24, []
        while at + 16 <= len(data):
            seconds, micros, kept, length = struct.unpack_from("<IIII", data, at)
            times.append(seconds + micros / 1e6)
            self.add(data[at + 16:at + 16 + kept], length)
            at += 16 + kept
        self.span = max(times) - min(times) if times else 0.0

    def add(self, frame, length):
        self.packets += 1
        self.longest = max(self.longest, length)
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == 0x0806:
            self.count("arp", (frame[28:32], frame[38:42]), frame[28:32], mutual=True)
            return
        if kind != 0x0800:
            self.faults["frames neither IPv4 nor ARP"] += 1
            return
        header = (frame[14] & 15) * 4
        ip, rest = frame[14:14 + header], frame[14 + header:]
        source, target, protocol = ip[12:16], ip[16:20], ip[9]
        if ones_sum(ip) != 0xFFFF:
            self.faults["bad IP checksums"] += 1
        for address in (source, target):
            if address[:2] != b"\x0a\x4d":
                self.faults["addresses outside 10.77.0.0/16"] += 1
        total = struct.unpack_from("!H", ip, 2)[0]
        if protocol in (6, 17):
            whole = total - header
            if whole <= len(rest):  # small enough to be wholly in the capture
                pseudo = source + target + struct.pack("!BBH", 0, protocol, whole)
                self.checked += 1
                if ones_sum(pseudo + rest[:whole]) != 0xFFFF:
                    self.faults["bad TCP/UDP checksums"] += 1
            a, b = struct.unpack_from("!HH", rest)
            known = PORT_NAMES.get(b) or PORT_NAMES.get(a) or "closed port"
            name = f"{'tcp' if protocol == 6 else 'udp'} {known}"
            self.count(name, (source + rest[0:2], target + rest[2:4]), source + rest[0:2])
        elif protocol == 1:
            echo = rest[0] in (0, 8)
            mark = rest[4:6] if echo else b""
            self.count("icmp echo" if echo else "icmp errors", (source + mark, target + mark), source + mark)
        else:
            self.faults[f"packets of IP protocol {protocol}"] += 1

    def count(self, name, ends, sender, mutual=False):
        key = (name, *sorted(ends))
        self.by_name[name] += 1
        self.conversations[name].add(key)
        self.directions[key].add(sender)

    def total_conversations(self):
        return sum(len(keys) for name, keys in self.conversations.items() if name[:3] in ("tcp", "udp"))

    def problems(self):
        found = [f"{count} {what}" for what, count in sorted(self.faults.items())]
        if not MIN_PACKETS <= self.packets <= MAX_PACKETS:
            found.append(f"{self.packets} packets, not {MIN_PACKETS} to {MAX_PACKETS}: change --load")
        if self.total_conversations() < MIN_CONVERSATIONS:
            found.append(f"{self.total_conversations()} conversations, fewer than {MIN_CONVERSATIONS}")
        if self.longest > MTU + 14:
            found.append(f"a frame of {self.longest} bytes: an offload is on")
        if self.bytes > MAX_BYTES:
            found.append(f"{self.bytes} bytes, more than {MAX_BYTES}")
        return found

    def print(self):
        print(f"{self.packets} packets, {self.total_conversations()} TCP and UDP conversations, "
              f"{self.span:.1f} s, {self.bytes} bytes, longest frame {self.longest}, "
              f"{self.checked} TCP/UDP checksums verified")
        print(f"{'traffic':<18}{'packets':>8}{'conversations':>15}{'both ways':>11}")
        for name, packets in self.by_name.most_common():
            keys = self.conversations[name]
            both = sum(len(self.directions[key]) > 1 for key in keys)
            print(f"{name:<18}{packets:>8}{len(keys):>15}{both:>11}")


# --------------------------------------------------------------------------

def check_machine():
    if os.geteuid() != 0:
        raise LabError("network namespaces need root; run this with sudo")
    missing = {program: package for program, package in PROGRAMS.items()
               if not shutil.which(program, path=CLEAN_ENV["PATH"])}
    if missing:
        lines = [f"  {program:<12} in package {package}" for program, package in missing.items()]
        raise LabError("programs missing:\n" + "\n".join(lines)
                       + "\ninstall them with: apt-get install " + " ".join(sorted(set(missing.values()))))


def parse_arguments():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(
        description="Make a header capture of real programs in a closed laboratory of network namespaces.",
        epilog="Debian packages needed: " + " ".join(sorted(set(PROGRAMS.values()))))
    parser.add_argument("--out", default=os.path.join(here, "lab.pcap"), help="capture to write")
    parser.add_argument("--seed", default="1", help="seed of all choices")
    parser.add_argument("--span", type=float, default=90.0, help="seconds in which clients start work")
    parser.add_argument("--load", type=float, default=1.0, help="more than 1: shorter pauses")
    parser.add_argument("--links", choices=["auto", "netem", "taps", "plain"], default="auto",
                        help="how hosts and bridge are joined (auto: the best this kernel has)")
    parser.add_argument("--clean", action="store_true",
                        help="only remove what killed runs left behind")
    return parser.parse_args()


def stop_on_signal(number, _frame):
    raise LabError(f"stopped by {signal.Signals(number).name}")


def main():
    options = parse_arguments()
    check_machine()
    if options.clean:
        for name in our_namespaces():
            remove_namespace(name)
            print(f"removed {name}")
        for folder in glob.glob(os.path.join(tempfile.gettempdir(), f"{PREFIX}-*")):
            shutil.rmtree(folder)  # holds the run's throwaway keys
            print(f"removed {folder}")
        return
    if not (10 <= options.span <= 600 and 0.05 <= options.load <= 20):
        raise LabError("--span must lie in 10..600 and --load in 0.05..20")
    if not os.path.isdir(os.path.dirname(os.path.abspath(options.out))):
        raise LabError(f"no folder for {options.out}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_on_signal)
    lab = Lab(options)
    try:
        lab.run()
        tally = Tally(lab.raw)
        tally.print()
        problems = tally.problems()
        if problems:
            raise LabError("the capture was not kept: " + "; ".join(problems))
        # Copy beside the target first, so that the rename is atomic.
        temporary = f"{options.out}.{os.getpid()}.tmp"
        try:
            shutil.copyfile(lab.raw, temporary)
            os.replace(temporary, options.out)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    finally:
        lab.close()
    print(f"wrote {options.out}")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--inside":
        role, settings = sys.argv[2], json.loads(sys.argv[3])
        if role == "wires":
            run_wires(settings)
        elif role == "api":
            run_api_host(settings)
        else:
            Client(settings).run()
    else:
        try:
            main()
        except (LabError, OSError, subprocess.SubprocessError) as error:
            sys.exit(f"make-lab-capture: {error}")
