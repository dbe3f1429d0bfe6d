"""How quick a network is: the figures by which segmentation networks are compared."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from geoseg.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "BENCH_PRECISIONS",
    "Speed",
    "count_flops",
    "measure_speed",
    "networks_table",
    "published",
]

BENCH_PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Speed:
    """What :func:`measure_speed` found.

    Attributes:
        parameters: of the network.
        gflops: of one chip, 1e9 floating point operations: twice the multiply-adds.
        mpx_s: 1e6 px of input a second: batch * size**2 / median time.
        fps: chips a second.
        ms: median time of a batch, milliseconds.
        ms_least: the quickest batch.
        ms_most: the slowest batch.
        cpu_mpx_s: 1e6 px a second of CPU time, which other programs on the machine do not change
            much; None on a GPU.
        peak_memory_bytes: on a GPU what torch allocated at most; on a CPU of the whole process.
        runs: batches that were timed, after ``warmup`` others.
        warmup: see ``runs``.
        size: chip side, px.
        batch: chips a batch.
        bands: of the input.
        classes: of the output.
        device: where it ran.
        hardware: its name.
        precision: one of :data:`BENCH_PRECISIONS`.
        threads: on a CPU.
        torch: its version.
    """

    parameters: int
    gflops: float
    mpx_s: float
    fps: float
    ms: float
    ms_least: float
    ms_most: float
    cpu_mpx_s: float | None
    peak_memory_bytes: int
    runs: int
    warmup: int
    size: int
    batch: int
    bands: int
    classes: int
    device: str
    hardware: str
    precision: str
    threads: int
    torch: str

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        return asdict(self)


def count_flops(network: nn.Module, in_channels: int, size: int) -> float:
    """Count the floating point operations of one chip, in 1e9: twice the multiply-adds.

    Convolutions and matrix products are counted, as torch's flop counter does it; nothing is
    computed. A CRF, which has neither, counts as nothing.

    Args:
        network: in evaluation mode, on any device; it is not changed.
        in_channels: bands C.
        size: chip side, px.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # A lattice's size depends on its image, so a CRF can't be traced without computing.
    network = getattr(network, "network", network) if hasattr(network, "crf") else network
    state = {k: v.to("meta") for k, v in network.state_dict(keep_vars=True).items()}
    x = torch.empty((1, in_channels, size, size), device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(network, state, (x,))
    return float(counter.get_total_flops() / 1e9)


def measure_speed(
    network: nn.Module,
    *,
    in_channels: int = 3,
    size: int = 512,
    batch: int = 1,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    warmup: int = 10,
    runs: int = 30,
    seconds: float = 60.0,
    progress: Callable[[str], None] | None = None,
) -> Speed:
    """Time forward passes on random numbers, without reading or writing anything.

    Args:
        network: gives logits; moved to the device and put into evaluation mode.
        in_channels: bands C.
        size: chip side, px.
        batch: chips a batch.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``fp32``, or ``bf16`` or ``fp16`` by autocast.
        threads: on a CPU; None leaves torch's own number.
        warmup: batches before timing.
        runs: batches to time.
        seconds: after this time no further batch is started, if one was warmed up and three were
            timed; how many there were stands in the result.
        progress: called with a line of text.

    Raises:
        UsageError: a number is out of range.
        DeviceError: the device isn't there.
    """
    import torch

    from geoseg.core.machine import peak_memory
    from geoseg.networks.device import pick_device

    _check(precision, size=size, batch=batch, runs=runs, bands=in_channels)
    where = pick_device(device)
    with _torch_threads(threads):
        network = network.eval().to(where).to(memory_format=torch.channels_last)
        x = torch.randn((batch, in_channels, size, size), device=where)
        x = x.contiguous(memory_format=torch.channels_last)
        gflops = count_flops(network, in_channels, size)
        classes = _classes(network, x[:1, :, :1, :1])
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)
        times, cpu, warmed = _time(network, x, precision, warmup, runs, seconds, progress)
        used_threads = torch.get_num_threads()
    median = statistics.median(times)
    cuda = where.type == "cuda"
    pixels = batch * size * size
    return Speed(
        parameters=sum(p.numel() for p in network.parameters()),
        gflops=gflops,
        mpx_s=pixels / median / 1e6,
        fps=batch / median,
        ms=median * 1e3,
        ms_least=min(times) * 1e3,
        ms_most=max(times) * 1e3,
        cpu_mpx_s=pixels / statistics.median(cpu) / 1e6 if where.type == "cpu" else None,
        peak_memory_bytes=torch.cuda.max_memory_allocated(where) if cuda else peak_memory(),
        runs=len(times),
        warmup=warmed,
        size=size,
        batch=batch,
        bands=in_channels,
        classes=classes,
        device=str(where),
        hardware=torch.cuda.get_device_name(where) if cuda else _cpu_name(),
        precision=precision,
        threads=used_threads,
        torch=torch.__version__,
    )


def _check(precision: str, **numbers: int) -> None:
    """Refuse what can't be measured.

    Raises:
        UsageError: the precision is unknown, or a number is below 1.
    """
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    if precision not in BENCH_PRECISIONS:
        raise UsageError(
            f"precision is {precision!r}; it must be one of {', '.join(BENCH_PRECISIONS)}"
        )


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Have torch compute on so many threads; None leaves its own number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _classes(network: nn.Module, pixel: torch.Tensor) -> int:
    import torch

    with torch.inference_mode():
        return int(network(pixel).shape[1])


def _time(
    network: nn.Module,
    x: torch.Tensor,
    precision: str,
    warmup: int,
    runs: int,
    seconds: float,
    progress: Callable[[str], None] | None,
) -> tuple[list[float], list[float], int]:
    """Measure wall and CPU seconds of each timed batch; say how many went before."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    wall: list[float] = []
    cpu: list[float] = []
    warmed = 0
    began = time.perf_counter()
    with (
        torch.inference_mode(),
        torch.autocast(x.device.type, dtype=dtype, enabled=precision != "fp32"),
    ):
        while len(wall) < runs:
            late = time.perf_counter() - began > seconds
            if late and len(wall) >= 3:
                break
            start, start_cpu = time.perf_counter(), time.process_time()
            network(x)
            if x.device.type == "cuda":
                torch.cuda.synchronize(x.device)
            elif x.device.type == "mps":
                torch.mps.synchronize()
            spent = time.perf_counter() - start, time.process_time() - start_cpu
            # A slow network need not warm up for minutes: its first pass already took long.
            if warmed < warmup and not (warmed and time.perf_counter() - began > seconds / 3):
                warmed += 1
                continue
            wall.append(spent[0])
            cpu.append(spent[1])
            if progress is not None:
                progress(f"{len(wall)} of {runs}: {spent[0] * 1e3:.1f} ms")
    return wall, cpu, warmed


def _cpu_name() -> str:
    """Name the processor, as far as the system does."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def published() -> dict[str, Any]:
    """Read what benchmarks/networks.py measured of every network, as it stands in the package.

    Returns:
        ``how`` (what was measured, on what) and ``networks``: name -> paper, year, parameters,
        gflops and mpx_s.
    """
    text = files("geoseg.networks").joinpath("published.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def networks_table(markdown: bool = False) -> str:
    """Print the networks with paper, year, parameters, GFLOPs and speed.

    Args:
        markdown: for the documentation, else for a terminal.
    """
    rows = [
        (
            name,
            f"{entry['paper']} {entry['year']}",
            f"{entry['parameters'] / 1e6:.2f}",
            f"{entry['gflops']:.1f}",
            f"{entry['mpx_s']:.3g}",
        )
        for name, entry in published()["networks"].items()
    ]
    head = ("network", "paper", "parameters, M", "GFLOPs", "Mpx/s")
    if markdown:
        lines = ["| " + " | ".join(head) + " |", "|---|---|---|---|---|"]
        lines += [f"| `{name}` | " + " | ".join(rest) + " |" for name, *rest in rows]
        return "\n".join(lines)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )
