"""A party's edits by round, and those of them that count."""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr_collabedit.data.augmentation import augmented
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.messages.edit_set import EditSet


@dataclass(frozen=True)
class OwnEdits:
    """What a client edits in each round.

    Attributes
    ----------
    rounds : sequence of sequence of EvaluationCase
        First round first; there is nothing to edit after the last.
    """

    rounds: Sequence[Sequence[EvaluationCase]]

    def of_round(
        self, server_round: int, inactive: EditSet | None = None
    ) -> list[EvaluationCase]:
        """Return the round's cases without those that are inactive."""
        cases = self._cases(server_round)
        return [
            c
            for i, c in enumerate(cases)
            if (server_round, i) not in (inactive or EditSet())
        ]

    def requests(
        self,
        server_round: int,
        inactive: EditSet | None = None,
        enlarged: EditSet | None = None,
    ) -> list[EditRequest]:
        """Return the edits of `of_round`, those of a set with their augmentations."""
        whole = EditSet.of({server_round: None})
        return self.requests_inside(whole, enlarged, inactive)

    def requests_inside(
        self,
        chosen: EditSet,
        enlarged: EditSet | None = None,
        inactive: EditSet | None = None,
    ) -> list[EditRequest]:
        """Return the edits of `inside`, those of a set with their augmentations.

        Without those that are inactive.
        """
        return [
            request
            for server_round in sorted(chosen.rounds)
            for place, case in enumerate(self._cases(server_round))
            if (server_round, place) in chosen
            and (server_round, place) not in (inactive or EditSet())
            for request in (
                augmented(case)
                if (server_round, place) in (enlarged or EditSet())
                else [case.request]
            )
        ]

    def inside(self, chosen: EditSet) -> list[EvaluationCase]:
        """Return the cases of a set, in the order of their rounds and places."""
        return [
            case
            for server_round in sorted(chosen.rounds)
            for place, case in enumerate(self._cases(server_round))
            if (server_round, place) in chosen
        ]

    def until(
        self, server_round: int, inactive: EditSet
    ) -> dict[int, list[EvaluationCase]]:
        """Return the active cases up to a round, 0 for all, by round."""
        last = min(server_round or len(self.rounds), len(self.rounds))
        return {r: self.of_round(r, inactive) for r in range(1, last + 1)}

    def _cases(self, server_round: int) -> Sequence[EvaluationCase]:
        if not 1 <= server_round <= len(self.rounds):
            return ()
        return self.rounds[server_round - 1]
