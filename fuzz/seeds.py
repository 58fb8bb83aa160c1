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
    "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type",
    "42.1.2.3,10.0.0.1,51000,443,TCP,1700000000000000,0.25,12,4820,background",
    "704774659,167772161,53,53,UDP,1700000000100000,0,1,76,dns",
    '1.1.1.1,2.2.2.2,80.0,1,ICMP,1700000000.5,1e-3,3,84,"a, b"',
]
for count in range(1, len(rows) + 1):
    seed("csv", f"{count}-lines", "\n".join(rows[:count]) + "\n")

capture = (ROOT / "tests/captures/lab.pcap").read_bytes()
for size in (24, 400, 3000):
    seed("capture", f"{size}-bytes", capture[:size])
packet = capture[40 : 40 + struct.unpack("<I", capture[32:36])[0]]
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
