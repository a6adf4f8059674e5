"""Sums and counts of the per-case metrics, and the published numbers made of them.

What is summed is one value per case: the mean over the case's prompts. A published
number is the mean of that over cases, in percent, as MEMIT's ``summarize.py`` has it;
its Score is the harmonic mean of the three *means*, not a mean of harmonic means.

Clients send sums and counts, never averages, so that the average over clients of
different size is the average over all their cases.

Source: Kevin Meng, Arnab Sen Sharma, Alex Andonian, Yonatan Belinkov, David Bau.
Mass-Editing Memory in a Transformer. ICLR 2023. https://arxiv.org/abs/2210.07229
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr_collabedit.errors import PayloadError

GRID_BITS = 32

PUBLISHED_NAMES: Mapping[str, str] = {
    "ES": "efficacy-success",
    "PS": "paraphrase-success",
    "NS": "neighborhood-success",
    "EM": "efficacy-magnitude",
    "PM": "paraphrase-magnitude",
    "NM": "neighborhood-magnitude",
    "EA": "efficacy-accuracy",
    "PA": "paraphrase-accuracy",
    "NA": "neighborhood-accuracy",
    "token_EA": "efficacy-token-accuracy",
    "token_PA": "paraphrase-token-accuracy",
    "token_NA": "neighborhood-token-accuracy",
    "retention": "retention-accuracy",
    "MH": "multi-hop-accuracy",
    "generated_efficacy": "generated-efficacy",
    "generated_paraphrase": "generated-paraphrase",
    "fluency": "fluency",
    "consistency": "consistency",
}


@dataclass(frozen=True)
class MetricSums:
    """Sum and number of cases of every metric; adding merges two sets of cases.

    A value is rounded to a multiple of ``2**-32`` (2.3e-10) when it enters. Sums below
    ``2**21`` of such numbers are exact in float64, so the result does not depend on how
    the cases are split over clients or in which order these reply, to the last bit.

    Attributes
    ----------
    totals : Mapping of str to (float, int)
        Metric name, in kebab case, to the sum over cases and the number of cases. A
        case for which a metric is not defined counts in neither.

    Examples
    --------
    >>> one, two = MetricSums.of({"accuracy": 1.0}), MetricSums.of({"accuracy": 0.5})
    >>> (one + two).mean("accuracy")
    0.75
    >>> (one + two).to_flat()
    {'accuracy/sum': 1.5, 'accuracy/count': 2}
    """

    totals: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "MetricSums":
        """Return the sums of one case, given the finite value of each metric."""
        return cls({name: (_to_grid(value), 1) for name, value in values.items()})

    @classmethod
    def merge(cls, parts: "Iterable[MetricSums]") -> "MetricSums":
        """Return the sums over all cases of ``parts``."""
        return sum(parts, start=cls())

    @classmethod
    def from_flat(cls, flat: Mapping[str, object]) -> "MetricSums":
        """Return the sums that ``to_flat`` wrote; other entries are passed over.

        Raises
        ------
        PayloadError
            If a sum is not a finite number, or has no count, or a count is not a
            non-negative integer, or has no sum.
        """
        names = dict.fromkeys(
            key.rpartition("/")[0] for key in flat if key.endswith(("/sum", "/count"))
        )
        return cls({name: _read_total(name, flat) for name in names})

    def to_flat(self) -> dict[str, float | int]:
        """Return ``name/sum`` and ``name/count`` entries, as a message carries them."""
        flat: dict[str, float | int] = {}
        for name, (total, count) in self.totals.items():
            flat |= {f"{name}/sum": total, f"{name}/count": count}
        return flat

    def mean(self, name: str) -> float | None:
        """Return the mean over cases, or ``None`` if no case defines the metric."""
        total, count = self.totals.get(name, (0.0, 0))
        return total / count if count else None

    def __add__(self, other: "MetricSums") -> "MetricSums":
        totals = dict(self.totals)
        for name, (total, count) in other.totals.items():
            own_total, own_count = totals.get(name, (0.0, 0))
            totals[name] = (own_total + total, own_count + count)
        return MetricSums(totals)


def prefixed(
    prefix: str, sums: MetricSums, names: Iterable[str] | None = None
) -> MetricSums:
    """Return the metrics under longer names; only those of ``names`` if it is given."""
    kept = sums.totals if names is None else [n for n in names if n in sums.totals]
    return MetricSums({f"{prefix}{name}": sums.totals[name] for name in kept})


def harmonic_mean(*values: float | None) -> float | None:
    """Return the harmonic mean; 0 if a value is 0, ``None`` if a value is ``None``.

    Examples
    --------
    >>> harmonic_mean(1.0, 0.5, 0.25)
    0.42857142857142855
    """
    known = [value for value in values if value is not None]
    return statistics.harmonic_mean(known) if len(known) == len(values) else None


def summarize(sums: MetricSums) -> dict[str, float | None]:
    """Return the published numbers, in percent; ``None`` where no case defines one.

    Returns
    -------
    dict of str to float or None
        ``ES``, ``PS``, ``NS`` : the wanted target is likelier than the other one, on
        the rewrite, paraphrase and neighborhood prompts; ``Score``, their harmonic
        mean. ``EM``, ``PM``, ``NM`` : by how much (difference of the geometric-mean
        token probabilities). ``EA``, ``PA``, ``NA`` : every token of the wanted target
        is the likeliest; ``accuracy_score``, their harmonic mean. ``token_EA``,
        ``token_PA``, ``token_NA``, ``token_accuracy_score`` : the same with the
        fraction of the target's tokens, which is zsRE's protocol. ``retention`` :
        accuracy on other facts about the edited subjects. ``MH`` : questions whose
        answer follows from the edits. ``generated_efficacy``,
        ``generated_paraphrase`` : freely generated text begins with the new target.
        ``fluency``, ``consistency`` : n-gram entropy of free text, in hundredths of a
        bit as tables print it, and its similarity with reference texts.
    """
    means = {name: sums.mean(metric) for name, metric in PUBLISHED_NAMES.items()}
    summary = {name: None if m is None else 100 * m for name, m in means.items()}
    return {
        "Score": harmonic_mean(*(summary[name] for name in ("ES", "PS", "NS"))),
        "accuracy_score": harmonic_mean(*(summary[n] for n in ("EA", "PA", "NA"))),
        "token_accuracy_score": harmonic_mean(
            *(summary[name] for name in ("token_EA", "token_PA", "token_NA"))
        ),
        **summary,
    }


def _to_grid(value: float) -> float:
    return math.ldexp(round(math.ldexp(value, GRID_BITS)), -GRID_BITS)


def _read_total(name: str, flat: Mapping[str, object]) -> tuple[float, int]:
    total, count = flat.get(f"{name}/sum"), flat.get(f"{name}/count")
    if not isinstance(total, int | float) or not math.isfinite(total):
        raise PayloadError(
            f"Metric {name!r}: expected a finite number under '{name}/sum', found "
            f"{total!r}. Send what MetricSums.to_flat() returns."
        )
    if not isinstance(count, int) or count < 0:
        raise PayloadError(
            f"Metric {name!r}: expected a number of cases under '{name}/count', found "
            f"{count!r}. Send what MetricSums.to_flat() returns."
        )
    return float(total), count
