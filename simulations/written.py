"""Which of the simulation's cases a strategy has written: only a simulation knows."""

from collections.abc import Sequence

from flwr_collabedit.data.augmentation import augmented
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies import EditStrategy
from simulations.experiment import Rounds


def written_requests(
    clients: Sequence[Rounds], strategy: EditStrategy
) -> list[list[EditRequest]]:
    """Return the edits that each round wrote, whatever became of them later."""
    refused = {report.server_round for report in strategy.reports if report.refused}
    num_rounds = max((len(rounds) for rounds in clients), default=0)
    return [
        []
        if number in refused
        else [
            request
            for client, rounds in enumerate(clients)
            for place, case in enumerate(rounds[number - 1])
            if _is_written(strategy, f"client-{client}", number, place)
            for request in _requests(strategy, f"client-{client}", number, place, case)
        ]
        for number in range(1, num_rounds + 1)
    ]


def num_written(clients: Sequence[Rounds], strategy: EditStrategy) -> int:
    """Return how many edits are in the weights.

    In a deployment, whose server has no cases, those that the clients counted.
    """
    if clients:
        return sum(map(len, written_requests(clients, strategy)))
    kept = [report for report in strategy.reports if not report.refused]
    withdrawn = sum(report.declared.get("withdrawn", 0) for report in strategy.reports)
    return sum(report.num_edits for report in kept) - withdrawn


def active_cases(
    clients: Sequence[Rounds], strategy: EditStrategy
) -> list[EvaluationCase]:
    """Return the cases that count after the last round."""
    inactive = strategy.state.inactive
    return [
        case
        for client, rounds in enumerate(clients)
        for number, cases in enumerate(rounds, start=1)
        for place, case in enumerate(cases)
        if (number, place) not in inactive.get(f"client-{client}", EditSet())
    ]


def _requests(
    strategy: EditStrategy, name: str, number: int, place: int, case: EvaluationCase
) -> list[EditRequest]:
    enlarged = strategy.state.augmented.get(name, EditSet())
    return augmented(case) if (number, place) in enlarged else [case.request]


def _is_written(
    strategy: EditStrategy, name: str, server_round: int, place: int
) -> bool:
    state = strategy.state
    # With D4S what was withdrawn is as if it had never been written.
    gone = state.inactive if state.history.is_from_base else state.left_out
    took_part = server_round in state.took_part.get(name, ())
    is_known = bool(state.took_part)  # strategies that merge deltas keep no account
    return (took_part or not is_known) and (server_round, place) not in gone.get(
        name, EditSet()
    )
