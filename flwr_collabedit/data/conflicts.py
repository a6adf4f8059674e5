"""Cases that contradict others: the same fact with another object of its relation.

Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
    ICLR 2025, section 5.1 and appendix E. The paper lets GPT-3.5 write the second
    object; here it is drawn from the data, so that anyone can draw the same one.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from flwr_collabedit.data.normal_form import fact_of, normal_form, relation_of
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import ConfigurationError, RequestFormatError


class ConflictPair(NamedTuple):
    """Two cases of one fact with different targets; a policy says which is to win."""

    first: EvaluationCase
    second: EvaluationCase


def conflicting_cases(
    cases: Sequence[EvaluationCase], count: int, *, seed: int = 0
) -> list[EvaluationCase]:
    """Return cases that contradict ``count`` of the given ones, in their order.

    Parameters
    ----------
    cases : sequence of EvaluationCase
        What to draw from; their objects, old and new, are those of their relations.
    count : int
        At least 0.
    seed : int
        Decides which cases, and which object each gets.

    Returns
    -------
    list of EvaluationCase
        As the original, but for ``target_new``: an object of the same relation that no
        case of the fact has as its old or new answer, whatever its spelling. The id is
        the original's with ``-conflict``, and ``conflicts_with`` names the original.

    Raises
    ------
    ConfigurationError
        If fewer than ``count`` cases have another object to take.
    """
    rng = random.Random(seed)
    objects = _Objects(cases)
    made: dict[int, EvaluationCase] = {}
    for index in rng.sample(range(len(cases)), len(cases)):
        # One by one: cases of one fact take objects from each other.
        if len(made) < count and objects.others(cases[index]):
            made[index] = objects.contradict(cases[index], rng)
    if len(made) != count:
        raise _too_many(count, len(made))
    return [made[index] for index in sorted(made)]


def assign_conflicts(
    clients_rounds: Sequence[Sequence[Sequence[EvaluationCase]]],
    share: float,
    *,
    later: bool = False,
    seed: int = 0,
) -> list[list[list[EvaluationCase]]]:
    """Return every client's cases of every round, with contradicting ones among them.

    Parameters
    ----------
    clients_rounds : sequence of sequence of sequence of EvaluationCase
        ``clients_rounds[client][round]``, all clients with as many rounds.
    share : float
        Contradicted cases among the clients' own (not copies), 0 to 1; rounded.
    later : bool
        Whether the contradiction comes in a later round than the case or in the same.
    seed : int
        The same seed gives the same conflicts at the same clients and places.

    Returns
    -------
    list of list of list of EvaluationCase
        A contradicting case, see `conflicting_cases`, is at a client that has no other
        case of the fact in any round, at a random place in the round.

    Raises
    ------
    ConfigurationError
        If the share is out of range, the numbers of rounds differ, or fewer cases can
        be contradicted: there is no other object, no client without the fact, or (with
        ``later``) no later round.
    """
    _check(clients_rounds, share)
    rng = random.Random(seed)
    result = [[list(cases) for cases in rounds] for rounds in clients_rounds]
    objects = _Objects(chain.from_iterable(chain.from_iterable(clients_rounds)))
    held = [
        {fact_of(case.request) for case in chain.from_iterable(rounds)}
        for rounds in clients_rounds
    ]
    own = [
        (number, case)
        for rounds in clients_rounds
        for number, cases in enumerate(rounds)
        for case in cases
        if case.copied_from is None and case.conflicts_with is None
    ]
    wanted, made = round(share * len(own)), 0
    for number, case in rng.sample(own, len(own)):
        fact = fact_of(case.request)
        receivers = [c for c, facts in enumerate(held) if fact not in facts]
        rounds = range(number + 1, len(result[0])) if later else [number]
        if made == wanted or not (receivers and rounds and objects.others(case)):
            continue
        receiver = rng.choice(receivers)
        cases = result[receiver][rng.choice(rounds)]
        cases.insert(rng.randint(0, len(cases)), objects.contradict(case, rng))
        held[receiver].add(fact)
        made += 1
    if made < wanted:
        raise _too_many(wanted, made)
    return result


def conflict_pairs(cases: Iterable[EvaluationCase]) -> list[ConflictPair]:
    """Return each case that contradicts another, after that other; copies apart.

    Raises
    ------
    RequestFormatError
        If the contradicted case is not among them.
    """
    known = list(cases)
    own = [case for case in known if case.copied_from is None]
    originals = {case.request.case_id: case for case in own}
    pairs = []
    for case in own:
        if case.conflicts_with is None:
            continue
        if case.conflicts_with not in originals:
            raise RequestFormatError(
                f"Case {case.request.case_id!r}: expected the case "
                f"{case.conflicts_with!r}, which it contradicts, among {len(known)} "
                "cases, found none; give the cases of all clients and rounds"
            )
        pairs.append(ConflictPair(originals[case.conflicts_with], case))
    return pairs


class _Objects:
    """The objects of every relation, and those that are taken by every fact."""

    def __init__(self, cases: Iterable[EvaluationCase]) -> None:
        self._of_relation: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        self._taken: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for case in cases:
            for target in (case.request.target_new, case.target_true):
                if target is not None:
                    form = normal_form(target)
                    relation = relation_of(case.request)
                    self._of_relation[relation].setdefault(form, target)
                    self._taken[fact_of(case.request)].add(form)

    def others(self, case: EvaluationCase) -> list[str]:
        """Return the objects that a contradicting case may have."""
        taken = self._taken[fact_of(case.request)]
        objects = self._of_relation[relation_of(case.request)]
        return [target for form, target in objects.items() if form not in taken]

    def contradict(self, case: EvaluationCase, rng: random.Random) -> EvaluationCase:
        """Return the case with another object, which is taken from now on."""
        target = rng.choice(self.others(case))
        self._taken[fact_of(case.request)].add(normal_form(target))
        case_id = case.request.case_id
        changes = {"case_id": f"{case_id}-conflict", "target_new": target}
        return case.model_copy(
            update={
                "request": case.request.model_copy(update=changes),
                "conflicts_with": case_id,
                "copied_from": None,
                "related": (),
                "multi_hop": (),
            }
        )


def _check(
    clients_rounds: Sequence[Sequence[Sequence[EvaluationCase]]], share: float
) -> None:
    if not 0 <= share <= 1:
        raise ConfigurationError(
            f"expected a share of contradicted cases from 0 to 1, found {share}"
        )
    numbers = {len(rounds) for rounds in clients_rounds}
    if len(numbers) > 1:
        raise ConfigurationError(
            f"expected as many rounds of every client, found {sorted(numbers)}; give a "
            "client without cases an empty round"
        )


def _too_many(wanted: int, found: int) -> ConfigurationError:
    return ConfigurationError(
        f"expected {wanted} cases that can be contradicted, found {found}: that many "
        "have another object of their relation in the data, a client without the fact "
        "and a round to be contradicted in; ask for fewer"
    )
