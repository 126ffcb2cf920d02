"""`make bench`: every benchmark in turn, each in a process of its own. Run on a quiet machine; takes about an hour."""

import os
import subprocess
import sys
import time
from pathlib import Path

# Real images are needed for the codecs: see benchmarks/codecs.py.
real = ("codecs",) if "PROTLOC_DATA" in os.environ else ()
for name in (
    *real,
    "simulator",
    "packing",
    "knn",
    "probe",
    "heads",
    "moa",
    "background",
    "knowledge_graph",
    "loader",
    "views",
    "train_step",
    "learning",
):
    out = Path("benchmarks/results") / f"{time.strftime('%Y-%m-%d')}-{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"== {name} -> {out}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--out", str(out)], check=True)
