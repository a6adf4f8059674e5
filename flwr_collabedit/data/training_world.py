"""Edits of the embedded world that editors with trained parts are trained on."""

import random

from flwr_collabedit.data.case_draw import CaseDraw
from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.facts import FactWorld
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.training_split import EMBEDDED_SHARE, is_held_out


def training_world() -> FactWorld:
    """Return the facts of the default world about subjects that are not held out."""
    return FactWorld(
        tuple(
            fact
            for fact in default_world().facts
            if not is_held_out(fact.subject, EMBEDDED_SHARE)
        )
    )


def embedded_training_cases(
    *, num_draws: int = 4, seed: int = 0
) -> list[EvaluationCase]:
    """Return edits of subjects that ``embedded_cases(subjects="held-out")`` never has.

    Nor do they ask about such a subject.

    Parameters
    ----------
    num_draws : int
        How many times all training subjects are drawn, each time with one of a
        subject's facts and a new target.
    seed : int
        Decides facts and new targets.

    Returns
    -------
    list of EvaluationCase
        Draw after draw. Cases of one draw ask about none of its edits; case ids count
        from 0 in each.
    """
    rng = random.Random(seed)
    world = training_world()
    cases = []
    for _ in range(num_draws):
        edited = [rng.choice(facts) for facts in world.by_subject.values()]
        draw = CaseDraw(world, edited, rng)
        cases += [draw.case(number) for number in range(len(edited))]
    return cases
