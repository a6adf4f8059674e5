"""Traces and averages made by hand."""

from collections.abc import Sequence

import torch

from flwr_collabedit.data.known_facts import KnownFact
from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.locating.averages import TraceAverages
from flwr_collabedit.locating.causal_trace import FactTrace
from flwr_collabedit.locating.traced_prompt import TracedPrompt

FACT = KnownFact(fact_id=0, prompt="{} is in", subject="Norway", answer="Europe")


def made_trace(
    subject: tuple[int, int],
    length: int,
    *,
    clean: float,
    corrupted: float,
    state: Sequence[Sequence[float]],
    nothing: Sequence[float],
    mlp: Sequence[float],
) -> FactTrace:
    prompt = TracedPrompt(tuple(range(length)), 0, *subject)
    return FactTrace(
        FACT,
        prompt,
        tuple(prompt.positions),
        clean=clean,
        corrupted=corrupted,
        restored={"state": torch.tensor(state, dtype=torch.float64)},
        entering={
            "nothing": torch.tensor(nothing, dtype=torch.float64),
            "mlp": torch.tensor(mlp, dtype=torch.float64),
        },
    )


def made_averages(
    gap: Sequence[float], *, effect: float = 0.8, half_width: float | None = 0.01
) -> TraceAverages:
    """Return averages with these gaps of the MLPs and one effect in all layers."""

    def estimates(values: Sequence[float]) -> list[Estimate]:
        return [Estimate(value, half_width, 50) for value in values]

    (one,) = estimates([effect])
    return TraceAverages(
        clean=one,
        corrupted=one,
        total=one,
        indirect={"state": {"last subject token": estimates([effect] * len(gap))}},
        entering={
            "nothing": estimates([effect] * len(gap)),
            "mlp": estimates([effect - value for value in gap]),
        },
        gap={"mlp": estimates(gap)},
    )
