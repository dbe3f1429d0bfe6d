"""Parameters, GFLOPs and speed of every network, for the package and the manual.

    python benchmarks/networks.py [--rounds 3] [--names 'pspnet*']

Every network runs once a round on a 512 x 512 chip of three bands, one thread, fp32, and the
median over the rounds counts; rounds are interleaved, and CPU time is measured, since wall time on
a shared machine proves nothing. Writes geoseg/networks/published.json and the table of
docs/evidence/networks.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
from pathlib import Path

from geoseg.networks import create_model, list_models, model_info
from geoseg.networks.bench import measure_speed, networks_table

ROOT = Path(__file__).parents[1]
DATA = ROOT / "geoseg" / "networks" / "published.json"
PAGE = ROOT / "docs" / "evidence" / "networks.md"
MARKS = ("<!-- networks: made by benchmarks/networks.py -->", "<!-- end of networks -->")
SIDE = 512


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--names", default="*")
    parser.add_argument("--table-only", action="store_true", help="only write the table anew")
    arguments = parser.parse_args()
    if not arguments.table_only:
        measure(arguments.names, arguments.rounds)
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def measure(pattern: str, rounds: int) -> None:
    """Run the networks and write the package's file; networks that don't match keep theirs."""
    speeds: dict[str, list[float]] = {name: [] for name in list_models(pattern)}
    gflops: dict[str, float] = {}
    how = {}
    for number in range(rounds):
        for name, found in speeds.items():
            network = create_model(name)
            speed = measure_speed(network, size=SIDE, device="cpu", threads=1, warmup=1, runs=1)
            assert speed.cpu_mpx_s is not None
            found.append(speed.cpu_mpx_s)
            gflops[name] = speed.gflops
            how = {
                "what": "median over rounds of one forward pass each; px per second of CPU time",
                "size": SIDE,
                "bands": 3,
                "classes": 21,
                "threads": 1,
                "precision": "fp32",
                "rounds": rounds,
                "hardware": speed.hardware,
                "torch": speed.torch,
            }
            print(f"round {number + 1}: {name} {speed.cpu_mpx_s:.4f} Mpx/s", flush=True)
            del network
            gc.collect()
    before = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"networks": {}}
    entries = {k: v for k, v in before["networks"].items() if k in list_models()}
    for name, found in speeds.items():
        info = model_info(name)
        entries[name] = {
            "paper": info.paper,
            "year": info.year,
            "url": info.url,
            "parameters": info.parameters,
            "gflops": gflops[name],
            "mpx_s": round(statistics.median(found), 5),
        }
    document = {"how": how, "networks": dict(sorted(entries.items()))}
    DATA.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def with_table(text: str) -> str:
    """The page's text with the table of networks between its marks."""
    head, rest = text.split(MARKS[0])
    tail = rest.split(MARKS[1])[1]
    return f"{head}{MARKS[0]}\n{networks_table(markdown=True)}\n{MARKS[1]}{tail}"


if __name__ == "__main__":
    main()
