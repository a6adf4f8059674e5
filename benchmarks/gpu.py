"""An edit at GPT-2 XL's and GPT-J's size on an accelerator, phase by phase.

``python -m benchmarks.gpu`` prints, as each phase ends, its seconds, edits a second and
peak memory, and what share it reaches of the matrix rate and of the bandwidth that the
same run measures on the same device; then the same edits one at a time, as published.

Weights are random: targets cannot be reached as in a real model. So that the time is
that of a real edit, every one makes the full number of steps (no early stop, which
would make real edits faster), and the vocabulary has its real size.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.linalg import vector_norm

from benchmarks.gpu_limits import DeviceClock, Limits, measure_limits
from benchmarks.gpu_work import (
    Work,
    d_key_of,
    dtype_name,
    measure_work,
    second_moment_work,
    solve_work,
    targets_work,
)
from benchmarks.plain_memit import plain_key, plain_target
from benchmarks.target_settings import (
    CONTEXTS,
    SIZES,
    random_model,
    trained_tokenizer,
)
from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.layer_passes import LayerPasses, Plan
from flwr_collabedit.editors.methods import priors_of
from flwr_collabedit.editors.targets import Targets, optimize_targets
from flwr_collabedit.models.weights import weight_shapes

DOCUMENT_TOKENS, DOCUMENTS_PER_BATCH = 512, 16
# Keys of a random model may be nearly dependent; a real C0 needs no such help.
RIDGE = 0.01
_WIDTHS = (15, 9, 9, 9, 10, 9, 9, 9)
_HEADS = ("phase", "s", "edits/s", "peak GB", "TFLOP", "of rate", "GB", "of copy")


def main(
    model: Annotated[list[str] | None, typer.Option(help=", ".join(SIZES))] = None,
    edits: Annotated[int, typer.Option(help="Edits of our side.")] = 128,
    batch: Annotated[int, typer.Option(help="Targets optimised as one tensor.")] = 64,
    plain_edits: Annotated[int, typer.Option(help="Edits made one at a time.")] = 3,
    steps: Annotated[int, typer.Option(help="Evaluations of a target's loss.")] = 20,
    dtype: Annotated[
        str, typer.Option(help="Of the weights; GPT-J's default is bfloat16.")
    ] = "",
    device: str = "cuda",
    output: Annotated[
        Path | None, typer.Option(help="Also append each figure here as a JSON line.")
    ] = None,
) -> None:
    """Print the phases of every model."""
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "Expected a CUDA device, found none. `--model tiny --device cpu` shows "
            "that the benchmark runs; its figures say nothing of a GPU."
        )
    name = torch.cuda.get_device_name(target) if target.type == "cuda" else device
    typer.echo(f"{name}, torch {torch.__version__}")
    for size in model or ["gpt2-xl", "gpt-j"]:
        kind = getattr(torch, dtype) if dtype else SIZES[size].dtype
        bench = Benchmark(size, kind, target, edits, output)
        bench.run(batch, plain_edits, steps)
        del bench
        if target.type == "cuda":
            torch.cuda.empty_cache()


class Benchmark:
    """The phases of one model; every figure is told as soon as it is known."""

    def __init__(
        self,
        size: str,
        dtype: torch.dtype,
        device: torch.device,
        num_edits: int,
        output: Path | None,
    ) -> None:
        self._output, self._clock = output, DeviceClock(device)
        self._size, self._dtype = size, dtype_name(dtype)
        cases = embedded_cases(num_edits, subjects="all")
        self._requests = [case.request for case in cases]
        with self._clock.phase("build"):
            words = trained_tokenizer(self._requests)
            self._lm = random_model(size, words, str(device), dtype)
        count = self._lm.model.num_parameters()
        seconds = self._clock.seconds["build"]
        self._tell(
            f"\n{size}: {count:,} random weights in {self._dtype}, made in "
            f"{seconds:.1f} s; {num_edits} edits of layers {SIZES[size].layers}",
            weights=count,
            seconds=seconds,
        )
        self._limits = measure_limits(device, dtype)
        self._tell(
            f"copy {self._limits.bytes_per_s / 1e9:,.0f} GB/s, matmul {self._dtype} "
            f"{self._limits.flop_per_s / 1e12:,.1f} TFLOP/s, float64 "
            f"{self._limits.flop64_per_s / 1e12:,.1f} TFLOP/s",
            **vars(self._limits),
        )
        typer.echo(_line(_HEADS))

    def run(self, batch: int, plain_edits: int, steps: int) -> None:
        """Make the edits in all phases, then some of them one at a time."""
        lm, requests = self._lm, self._requests
        config = MemitConfig(
            layers=SIZES[self._size].layers,
            num_gradient_steps=steps,
            stop_loss=0.0,
            edits_per_batch=batch,
            second_moment_weight=1.0,
        )
        short = config.model_copy(update={"num_gradient_steps": 2})
        optimize_targets(lm, requests[:2], short, CONTEXTS)  # warm-up
        moments = self._second_moments(config)
        config, targets = self._targets(config)
        passes = self._passes(config, targets.z, moments)
        work = measure_work(lm, requests, config, CONTEXTS)
        self._phase("keys, residuals", "measure", work)
        d_key, count = d_key_of(lm, config.layers[0]), len(requests)
        work = solve_work(d_key, lm.hidden_size, count, len(config.layers))
        self._phase("solve", "solve", work)
        norms = [float(vector_norm(delta)) for delta in passes.deltas.values()]
        spent = sum(self._clock.seconds[n] for n in ("targets", "measure", "solve"))
        self._tell(
            f"all three: {count / spent:.2f} edits/s; norms of the deltas "
            + ", ".join(f"{norm:.3g}" for norm in norms),
            phase="all",
            edits_per_s=count / spent,
        )
        self._one_at_a_time(config, targets, plain_edits)

    def _second_moments(self, config: MemitConfig) -> dict[str, Tensor]:
        """Estimate them from twice as many random tokens as a key has entries."""
        lm, d_key = self._lm, d_key_of(self._lm, config.layers[0])
        length = min(DOCUMENT_TOKENS, lm.max_length)
        documents = -(-2 * d_key // length)
        with self._clock.phase("second-moment"):
            moments = estimate_second_moments(
                lm,
                config.layers,
                _documents(self._requests),
                num_samples=documents,
                corpus_name="random words",
                max_length=length,
                rows_per_batch=DOCUMENTS_PER_BATCH,
            )
        tokens, batches = documents * length, -(-documents // DOCUMENTS_PER_BATCH)
        work = second_moment_work(lm, config.layers, tokens, batches)
        self._phase("second-moment", "second-moment", work, note=f"{tokens:,} tokens")
        for moment in moments.values():
            moment.diagonal().add_(RIDGE * moment.diagonal().mean())
        return moments

    def _targets(self, config: MemitConfig) -> tuple[MemitConfig, Targets]:
        """Optimise them, in smaller batches if these need more memory than there is."""
        while True:
            found: Targets | None = None
            with suppress(torch.OutOfMemoryError), self._clock.phase("targets"):
                found = optimize_targets(self._lm, self._requests, config, CONTEXTS)
            if found is not None:
                break
            if config.edits_per_batch == 1:
                raise SystemExit("One edit needs more memory than the device has.")
            half = config.edits_per_batch // 2
            config = config.model_copy(update={"edits_per_batch": half})
            self._tell(f"out of memory: batches of {half} now", batch=half)
            self._clock = DeviceClock(self._clock.device)
            torch.cuda.empty_cache()
        work = targets_work(self._lm, self._requests, config, CONTEXTS)
        note = f"batches of {config.edits_per_batch}, {config.num_gradient_steps} steps"
        self._phase("targets", "targets", work, note=note)
        return config, found

    def _passes(
        self, config: MemitConfig, z: Tensor, moments: dict[str, Tensor]
    ) -> LayerPasses:
        """Measure and solve layer after layer, as `MemitEditor` does."""
        deltas = {
            name: torch.zeros(shape, dtype=torch.float64, device=self._lm.device)
            for name, shape in weight_shapes(self._lm, config.layers).items()
        }
        priors = priors_of(config, moments)
        given = (self._lm, config, CONTEXTS, priors, deltas)
        passes = LayerPasses(*given, clock=self._clock)
        passes.run(self._requests, z, Plan("synchronous", "remaining"))
        return passes

    def _one_at_a_time(
        self, config: MemitConfig, ours: Targets, num_edits: int
    ) -> None:
        """Time targets and keys as the published code makes them."""
        lm, clock = self._lm, self._clock
        count = min(num_edits, len(self._requests))
        if not count:
            return
        chosen = range(0, len(self._requests), len(self._requests) // count)[:count]
        requests = [self._requests[index] for index in chosen]
        plain_target(
            lm,
            requests[0],
            config.model_copy(update={"num_gradient_steps": 2}),
            CONTEXTS,
        )
        with clock.phase("plain targets"):
            z = [plain_target(lm, request, config, CONTEXTS).z for request in requests]
        with clock.phase("plain keys"), torch.no_grad():
            for layer in config.layers:
                for request in requests:
                    plain_key(lm, request, layer, CONTEXTS)
        gap = ours.z[list(chosen)] - torch.stack(z).to(ours.z)
        moved = ours.z[list(chosen)] - ours.initial[list(chosen)]
        for plain, own in (("plain targets", "targets"), ("plain keys", "measure")):
            each = clock.seconds[plain] / count
            times = each * len(self._requests) / clock.seconds[own]
            self._tell(
                f"one at a time, {plain.split()[1]}: {each:.3f} s/edit, peak "
                f"{_gigabytes(clock, plain)} GB: {times:.1f} times ours",
                phase=plain,
                seconds_per_edit=each,
                times=times,
            )
        self._tell(
            f"largest gap of a target to one at a time, of what it moved: "
            f"{float((vector_norm(gap, dim=1) / vector_norm(moved, dim=1)).max()):.1e}"
        )

    def _phase(self, shown: str, name: str, work: Work, note: str = "") -> None:
        seconds, limits = self._clock.seconds[name], self._limits
        rate, copied = shares(work, seconds, limits)
        count = len(self._requests)
        cells = (
            *(shown, f"{seconds:.2f}", f"{count / seconds:.2f}"),
            _gigabytes(self._clock, name),
            *(f"{(work.flop + work.flop64) / 1e12:.3g}", f"{rate:.1%}"),
            *(f"{work.num_bytes / 1e9:.3g}", f"{copied:.1%}"),
        )
        self._tell(
            f"{_line(cells)}  {note}".rstrip(),
            **{"phase": name, "seconds": seconds, "edits": count, "note": note},
            **vars(work),
            peak_bytes=self._clock.peaks.get(name),
            of_rate=rate,
            of_copy=copied,
        )

    def _tell(self, text: str, **figures: Any) -> None:
        typer.echo(text)
        if self._output is not None and figures:
            row = {"model": self._size, "dtype": self._dtype, **figures}
            with self._output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def shares(work: Work, seconds: float, limits: Limits) -> tuple[float, float]:
    """Return which shares of the matrix rates and of the bandwidth were reached."""
    floor_s = work.flop / limits.flop_per_s + work.flop64 / limits.flop64_per_s
    return floor_s / seconds, work.num_bytes / limits.bytes_per_s / seconds


def _documents(requests: Sequence[EditRequest]) -> Iterator[str]:
    """Yield documents of the requests' words, long enough to be cut."""
    words = " ".join(f"{r.subject} {r.target_new}" for r in requests).split()
    rng = Random(0)
    while True:
        yield " ".join(rng.choices(words, k=DOCUMENT_TOKENS))


def _gigabytes(clock: DeviceClock, name: str) -> str:
    return f"{clock.peaks[name] / 1e9:.2f}" if name in clock.peaks else "-"


def _line(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(cell.rjust(width) for cell, width in rest)


if __name__ == "__main__":
    typer.run(main)
