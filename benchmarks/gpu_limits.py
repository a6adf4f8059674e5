"""What a device can do, measured: bytes copied and matrices multiplied a second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import torch

from flwr_collabedit.editors.layer_passes import Clock

REPEATS = 5


@dataclass(frozen=True)
class Limits:
    """Bytes a second, and FLOP a second in the model's dtype and in float64."""

    bytes_per_s: float
    flop_per_s: float
    flop64_per_s: float


@dataclass
class DeviceClock(Clock):
    """Adds up seconds by phase, and keeps each phase's peak memory.

    The device is waited for at both ends of a phase, so that nothing is counted for the
    phase after.

    Attributes
    ----------
    peaks : dict of str to int
        Bytes that tensors took at most in a phase, all that the model holds included;
        empty on a CPU.
    """

    device: torch.device
    peaks: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to ``name``."""
        is_cuda = self.device.type == "cuda"
        wait(self.device)
        if is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        with super().phase(name):
            yield
            wait(self.device)
        if is_cuda:
            peak = torch.cuda.max_memory_allocated(self.device)
            self.peaks[name] = max(peak, self.peaks.get(name, 0))


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Return the best of some copies and of some square products."""
    size = 8192 if device.type == "cuda" else 512
    return Limits(
        _copy_rate(device),
        _matmul_rate(device, dtype, size),
        _matmul_rate(device, torch.float64, size),
    )


def best_s(device: torch.device, function: Callable[[], object]) -> float:
    """Return the shortest of some calls after a first one, in seconds."""
    function()
    times = []
    for _ in range(REPEATS):
        wait(device)
        began = perf_counter()
        function()
        wait(device)
        times.append(perf_counter() - began)
    return min(times)


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _copy_rate(device: torch.device) -> float:
    num_bytes = 2**31 if device.type == "cuda" else 2**26
    source = torch.ones(num_bytes // 4, device=device)
    copy = torch.empty_like(source)
    return 2.0 * num_bytes / best_s(device, lambda: copy.copy_(source))


def _matmul_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    matrix = torch.randn(size, size, device=device).to(dtype)
    return 2.0 * size**3 / best_s(device, lambda: matrix @ matrix)
