"""Time generators on one core: the shipped weights at S = 64, 128 and 256, and the paper's network of 71 M weights.

    python benchmarks/latency.py [--calls 50]

Medians of single calls in TorchScript, taken in turn, after a few calls to warm up.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import gpgan
from gpgan.nn.export import load
from gpgan.nn.model import BlendingGAN, ColorCorrector


def inputs(size: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.zeros(1, 1, size, size)
    mask[:, :, size // 4 : size // 2, size // 4 : size // 2] = 1
    source, target = (torch.rand(1, 3, size, size) for _ in range(2))
    composite = target + mask * (source - target)
    return [composite, mask, composite, source]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50)
    calls = parser.parse_args().calls
    torch.set_num_threads(1)

    shipped, metadata = load(Path(gpgan.__file__).parent / "weights" / "default.pt")
    networks: dict[str, tuple[torch.nn.Module, int]] = {}
    for size in (64, 128, 256):
        generator = ColorCorrector(size, metadata["width"])
        generator.load_state_dict(shipped.state_dict())
        networks[f"default, S = {size}"] = generator, size
    networks["the paper's, S = 64"] = BlendingGAN(64), 64
    runs: dict[str, Callable[[], object]] = {}
    for name, (network, size) in networks.items():
        scripted, images = torch.jit.script(network.eval()), inputs(size)
        runs[name] = lambda scripted=scripted, images=images: scripted(*images)
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for call in range(calls + 5):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if call >= 5:
                    times[name].append(time.perf_counter() - start)
    for name, (network, _) in networks.items():
        weights = sum(p.numel() for p in network.parameters())
        low, middle = min(times[name]) * 1e3, statistics.median(times[name]) * 1e3
        print(f"{name:<20} {weights:>12,} weights   median {middle:7.2f} ms   least {low:7.2f} ms")


if __name__ == "__main__":
    main()
