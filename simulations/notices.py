"""What a run's reader must not miss: bounds that were passed, undone rounds."""

from collections.abc import Sequence

from simulations.round_figures import Round


def notices(rounds: Sequence[Round]) -> list[str]:
    """Return every warning and every undone round, in the order of the rounds."""
    return [
        text
        for report in rounds
        for text in (*report.get("warnings", ()), *_undone(report))
    ]


def notices_in_short(rounds: Sequence[Round]) -> list[str]:
    """Return the undone rounds, and the warnings of the last round that has any."""
    found = [text for report in rounds for text in _undone(report)]
    warned = [report["warnings"] for report in rounds if report.get("warnings")]
    if warned:
        found += warned[-1]
        earlier = sum(map(len, warned[:-1]))
        if earlier:
            found.append(f"Warnings of earlier rounds, in report.md: {earlier}.")
    return found


def _undone(report: Round) -> list[str]:
    reason = report.get("refused")
    return [f"Round {report['server_round']} was undone: {reason}."] if reason else []
