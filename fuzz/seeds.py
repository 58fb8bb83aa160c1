"""Lays first inputs for every fuzz target under fuzz/corpus/, made of what the repository ships."""

import json
import pathlib
import struct
import zipfile

FUZZ = pathlib.Path(__file__).resolve().parent
ROOT = FUZZ.parent


def seed(target, name, contents):
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def block(kind, body):
    """A block of a pcapng."""
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


for config in sorted((ROOT / "configs").glob("*.json")):
    seed("config", config.name, config.read_text())

rows = [
    "srcip,dstip,srcport,proto,ts,td,pkt,byt,mac,ok,since",
    "42.1.2.3,10.0.0.1,51000,TCP,1700000000000000,0.25,12,4820,02:00:00:00:00:01,T,2026-01-01T00:00:00.5Z",
    "2001:db8::1,167772161,53,UDP,1700000000100000,-,1,-,02-00-00-00-00-02,F,2026-01-01 00:00:00",
    '1.1.1.1,2.2.2.2,80.0,"a, b",1700000000.5,1e-3,,84,-,-,-',
]
for count in range(1, len(rows) + 1):
    seed("csv", f"{count}-lines", "\n".join(rows[:count]) + "\n")

seed("csv", "zeek", "#separator \\x09\n#fields\t" + rows[0].replace(",", "\t") + "\n" + rows[1].replace(",", "\t") + "\n#close\n")
seed("csv", "semicolons", "\n".join(row.replace(",", ";") for row in rows[:3]))

capture = (ROOT / "tests/captures/lab.pcap").read_bytes()
for size in (24, 400, 3000):
    seed("capture", f"{size}-bytes", capture[:size])
packet = capture[40 : 40 + struct.unpack("<I", capture[32:36])[0]]
addresses = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
# Options hop by hop, routing, authentication, options of the destination, fragment, UDP.
chain = bytes.fromhex("2b00010400000000" "3300000000000000" "3c01000000000000" "00000000" "2c00010400000000" "1100000112345678")
datagram = chain + struct.pack(">HHHH", 5000, 53, 16, 0) + bytes(8)
ipv6 = packet[:12] + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(datagram), 0, 64) + addresses + datagram
header = capture[:24]
seed("capture", "ipv6", header + struct.pack("<IIII", 1, 0, len(ipv6), len(ipv6)) + ipv6)
section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
interface = block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HH", 0, 0))
enhanced = block(6, struct.pack("<IIIII", 0, 1, 2, len(packet), len(packet)) + packet)
simple = block(3, struct.pack("<I", len(packet)) + packet)
seed("capture", "pcapng", section + interface + enhanced + simple)

for bundle in sorted((ROOT / "tests/golden").glob("*.ns")):
    seed("bundle", bundle.name, bundle.read_bytes())
    manifest = zipfile.ZipFile(bundle).read("manifest.json").decode()
    seed("manifest", bundle.name, manifest)
    attributes = [field["name"] for field in json.loads(manifest)["schema"]["attributes"]]
    cells = ["10.0.0.1" if "ip" in name else "6" if name == "proto" else "53" for name in attributes]
    seed("given", bundle.name, f"dst_port=1-53\n{','.join(attributes)}\n{','.join(cells)}\n")
