"""What a run's rounds say of earlier edits and of the model's health, in numbers.

A round is one of ``rounds`` in ``summary.json``, in order and without round 0. What the
summary of an older run lacks is left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from flwr_collabedit.evaluation.forgetting import EfficacyMatrix

Round = Mapping[str, Any]


def kept(rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds that were not undone."""
    return [report for report in rounds if not report.get("refused")]


@dataclass(frozen=True)
class EfficacyByScoring:
    """EA of the edits between scorings, after each scoring.

    Where every round is scored these are the edits of each round. Undone rounds are no
    part of it: the model that was scored has been given up, and the edits were never
    written.

    Attributes
    ----------
    rounds : tuple of tuple of int
        The rounds of each group; the last one's scoring is the group's own.
    matrix : EfficacyMatrix
        In percent. Its groups count as of equal size; `overall_efficacy` weighs them by
        the edits that counted at the time.
    """

    rounds: tuple[tuple[int, ...], ...]
    matrix: EfficacyMatrix

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Self | None:
        """Return the figures; ``None`` unless two kept rounds were scored."""
        groups = _groups(rounds)
        if len(groups) < 2:
            return None
        by_number = {report["server_round"]: report for report in rounds}
        return cls(
            tuple(groups),
            EfficacyMatrix.of(
                [
                    [_mean(by_number[own[-1]], group) for group in groups[: r + 1]]
                    for r, own in enumerate(groups)
                ]
            ),
        )

    @property
    def names(self) -> list[str]:
        """Each group's first and last round in words."""
        return [
            f"{own[0]}-{own[-1]}" if len(own) > 1 else f"round {own[0]}"
            for own in self.rounds
        ]


def first_efficacy(rounds: Sequence[Round]) -> dict[int, float]:
    """Return EA of the first edits, in percent, after each kept round.

    They are those of the rounds up to the first scoring; where only the last round was
    scored, those of the first round.
    """
    groups = _groups(rounds)
    first = groups[0] if len(groups) > 1 else [r["server_round"] for r in rounds[:1]]
    found = {r["server_round"]: _mean(r, first) for r in kept(rounds)}
    return {number: value for number, value in found.items() if value is not None}


def overall_efficacy(rounds: Sequence[Round]) -> dict[int, float]:
    """Return EA of all edits so far that count, in percent, after each kept round."""
    return {
        report["server_round"]: report["evaluation"]["EA"]
        for report in kept(rounds)
        if "EA" in report["evaluation"]
    }


def norm_growth(report: Round, before: Mapping[str, float]) -> dict[str, float]:
    """Return by how many percent each edited weight's L1 norm has grown.

    Parameters
    ----------
    report : mapping
        A round.
    before : mapping of str to float
        The unedited model's norms, by the names of ``weight_norms``.
    """
    return {
        layer_of(name): 100 * (norm / before[name] - 1)
        for name, norm in report.get("weight_norms", {}).items()
        if name.startswith("l1/") and before.get(name)
    }


def end_figures(
    rounds: Sequence[Round], before: Mapping[str, float]
) -> dict[str, float]:
    """Return what the last kept round has left.

    Parameters
    ----------
    rounds : sequence of mapping
        All of a run.
    before : mapping of str to float
        The unedited model's norms, for rounds that do not have them themselves.

    Returns
    -------
    dict
        What is known of: ``first``, see `first_efficacy`, and ``all``, EA of all
        edits; ``forgetting``, the mean over the matrix's rounds; ``perplexity`` and
        ``norm``, the increase of perplexity and the largest one of a layer's L1 norm,
        in percent; ``kl`` in nats; ``undone``, the number of such rounds.
    """
    left = kept(rounds)
    found: dict[str, float | None] = {"undone": len(rounds) - len(left)}
    if left:
        last = left[-1]
        number = last["server_round"]
        growth = norm_growth(last, last.get("base_norms") or before)
        scored = EfficacyByScoring.of(rounds)
        found |= {
            "forgetting": scored.matrix.mean_forgetting if scored else None,
            "first": first_efficacy(rounds).get(number),
            "all": overall_efficacy(rounds).get(number),
            "norm": max(growth.values(), default=None),
            **health_change(last),
        }
    return {name: value for name, value in found.items() if value is not None}


def health_change(report: Round) -> dict[str, float]:
    """Return the increase of perplexity in percent, and ``kl`` in nats."""
    health, found = report.get("health", {}), {}
    if "perplexity" in health and "base-perplexity" in health:
        share = health["perplexity"] / health["base-perplexity"]
        found["perplexity"] = 100 * (share - 1)
    if "kl-to-base" in health:
        found["kl"] = health["kl-to-base"]
    return found


def layer_of(parameter: str) -> str:
    """Return the number in a parameter's name, or the name if it has none."""
    number = re.search(r"\.(\d+)\.", parameter)
    return number[1] if number else parameter


def _groups(rounds: Sequence[Round]) -> list[tuple[int, ...]]:
    """Return the kept rounds from one scoring to the next, up to the last scoring."""
    groups: list[tuple[int, ...]] = []
    waiting: tuple[int, ...] = ()
    for report in kept(rounds):
        waiting = (*waiting, report["server_round"])
        if report.get("efficacy_by_round"):
            groups.append(waiting)
            waiting = ()
    return groups


def _mean(report: Round, numbers: Sequence[int]) -> float | None:
    """Return EA of some rounds' edits that count, ``None`` if there are none."""
    by_round = report.get("efficacy_by_round", {})
    found = [by_round[str(number)] for number in numbers if str(number) in by_round]
    total = sum(scores["edits"] for scores in found)
    if not total:
        return None
    mean: float = sum(scores["edits"] * scores["EA"] for scores in found) / total
    return mean
