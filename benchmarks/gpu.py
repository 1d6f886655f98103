"""Agent steps per second on an NVIDIA GPU by precision: `python benchmarks/gpu.py [key=value ...]`.

Float32 without and with TF32, bfloat16, and bfloat16 compiled take turns, each turn a process of its own. What is
written behind the command, such as vecenv.num_envs=256, is set for all. Prints a table and writes benchmarks/gpu.json.
"""

import statistics
import sys
from pathlib import Path

import torch
from results_page import markdown
from turns import machine, medians, take_turns, write_record

RECORD = Path(__file__).resolve().parent / "gpu.json"
VARIANTS: dict[str, list[str]] = {
    "float32": ["device.precision=float32", "device.tf32=false"],
    "float32, TF32": ["device.precision=float32", "device.tf32=true"],
    "bfloat16": ["device.precision=bfloat16"],
    "bfloat16, compiled": ["device.precision=bfloat16", "device.compile=true"],
}
TURNS, SECONDS, WARMUPS = 5, 8.0, 4  # the first updates compile, some of them anew for other lengths


def main(overrides: list[str]) -> int:
    """Measures and reports; 1 without a GPU."""
    if not torch.cuda.is_available():
        print(f"No NVIDIA GPU that torch {torch.__version__} can use: nothing to measure.")
        return 1
    points = {name: ["device=cuda", *keys, *overrides] for name, keys in VARIANTS.items()}
    found = take_turns(points, TURNS, SECONDS, WARMUPS)
    middles = {name: medians(turns) for name, turns in found.items()}
    here = {**machine(), "gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    write_record(RECORD, {"machine": here, "overrides": points, "turns": found, "medians": middles})
    reference, rows = middles["float32"]["steps_per_second"], []
    for name, turns in found.items():
        speeds = [turn["steps_per_second"] for turn in turns]
        rows.append(
            [
                name,
                f"{statistics.median(speeds):,.0f}",
                f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                f"{statistics.median(speeds) / reference:.2f}",
                *(f"{middles[name][part]:.3f}" for part in ("env", "rollout forward", "update")),
                f"{middles[name]['peak_gpu_memory_mb']:,.0f} MB",
            ]
        )
    split = ["env, s per 1,000", "rollout forward", "update"]
    print(markdown(["", "agent steps/s", "slowest to fastest", "of float32", *split, "peak GPU memory"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
