"""What a run's rounds say of earlier edits and of the model's health, in numbers.

A round is one of ``rounds`` in ``summary.json``, in order and without round 0. What the
summary of an older run lacks is left out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flwr_collabedit.evaluation.forgetting import EfficacyMatrix

Round = Mapping[str, Any]


def kept(rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds that were not undone."""
    return [report for report in rounds if not report.get("refused")]


def efficacy_matrix(rounds: Sequence[Round]) -> EfficacyMatrix | None:
    """Return EA, in percent, of each round's edits after each round.

    Of an undone round neither row nor column is known: the model that was scored has
    been given up, and the edits were never written. The matrix ends with the last round
    that was kept.

    Returns
    -------
    EfficacyMatrix or None
        ``None`` unless two kept rounds were evaluated. Its rounds count as of equal
        size; `overall_efficacy` weighs them by the edits that counted at the time.
    """
    by_number = {report["server_round"]: report for report in kept(rounds)}
    found = {
        number: _efficacies(report, by_number) for number, report in by_number.items()
    }
    if sum(bool(row) for row in found.values()) < 2:
        return None
    return EfficacyMatrix.of(
        [
            [found.get(r, {}).get(s) for s in range(1, r + 1)]
            for r in range(1, max(by_number) + 1)
        ]
    )


def first_round_efficacy(rounds: Sequence[Round]) -> dict[int, float]:
    """Return EA of the first round's edits, in percent, after each kept round."""
    by_number = {report["server_round"]: report for report in kept(rounds)}
    found = {r: _efficacies(report, by_number) for r, report in by_number.items()}
    return {r: row[1] for r, row in found.items() if 1 in row}


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
        What is known of: ``first`` and ``all``, EA of the first round's and of all
        edits, and ``perplexity`` and ``norm``, the increase of perplexity and the
        largest one of a layer's L1 norm, in percent; ``kl`` in nats; ``undone``, the
        number of such rounds.
    """
    left = kept(rounds)
    found: dict[str, float | None] = {"undone": len(rounds) - len(left)}
    if left:
        last = left[-1]
        number, health = last["server_round"], last.get("health", {})
        growth = norm_growth(last, last.get("base_norms") or before)
        found |= {
            "first": first_round_efficacy(rounds).get(number),
            "all": overall_efficacy(rounds).get(number),
            "norm": max(growth.values(), default=None),
            "kl": health.get("kl-to-base"),
        }
        if "perplexity" in health and "base-perplexity" in health:
            share = health["perplexity"] / health["base-perplexity"]
            found["perplexity"] = 100 * (share - 1)
    return {name: value for name, value in found.items() if value is not None}


def layer_of(parameter: str) -> str:
    """Return the number in a parameter's name, or the name if it has none."""
    number = re.search(r"\.(\d+)\.", parameter)
    return number[1] if number else parameter


def _efficacies(report: Round, kept_numbers: Mapping[int, Round]) -> dict[int, float]:
    """Return EA by round, without edits that were never written or do not count."""
    return {
        int(name): scores["EA"]
        for name, scores in report.get("efficacy_by_round", {}).items()
        if name.isdecimal() and int(name) in kept_numbers and "EA" in scores
    }
