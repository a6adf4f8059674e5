"""Text and prompts of the embedded world to watch a model's health with.

An edit is to change one subject's fact and nothing else. So that what is measured is
damage and not the edit itself, the edited subjects are left out of both.
"""

import random
from collections.abc import Collection, Iterable

from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.facts import Fact
from flwr_collabedit.errors import ConfigurationError


def embedded_held_out_texts(
    num_texts: int, *, exclude: Collection[str] = (), seed: int = 0
) -> list[str]:
    """Return sentences that the embedded model was not trained on.

    Each states a fact of the default world, which the model knows, with a template
    that no training text stated this fact with. Most of the perplexity is the choice
    of a subject, which nothing before it tells; what damage changes is the rest.

    Parameters
    ----------
    num_texts : int
        At least 1; there are two for every fact.
    exclude : collection of str
        Subjects to leave out, those that are edited: their sentences state the old
        answer, which an edit is meant to make unlikely.
    seed : int
        Decides the order. Texts that two exclusions leave come in the same order.

    Raises
    ------
    ConfigurationError
        If fewer sentences are left than are asked for.
    """
    sentences = (
        (fact, fact.sentence(template))
        for fact in default_world().facts
        for template in fact.held_out
    )
    return _drawn(sentences, num_texts, exclude, seed)


def embedded_neutral_prompts(
    num_prompts: int, *, exclude: Collection[str] = (), seed: int = 0
) -> list[str]:
    """Return prompts, one about each subject, whose answers no edit is to change.

    Parameters
    ----------
    num_prompts : int
        At least 1 and at most the number of subjects that are left.
    exclude : collection of str
        Subjects to leave out, those that are edited.
    seed : int
        Decides the order and each subject's fact. Prompts that two exclusions leave
        come in the same order.

    Raises
    ------
    ConfigurationError
        If fewer subjects are left than prompts are asked for.
    """
    rng = random.Random(seed)
    asked = [rng.choice(facts) for facts in default_world().by_subject.values()]
    prompts = ((fact, fact.prompt(fact.templates[0])) for fact in asked)
    return _drawn(prompts, num_prompts, exclude, seed)


def _drawn(
    texts: Iterable[tuple[Fact, str]], count: int, exclude: Collection[str], seed: int
) -> list[str]:
    order = list(texts)
    random.Random(seed).shuffle(order)
    left = [text for fact, text in order if fact.subject not in exclude]
    if not 1 <= count <= len(left):
        raise ConfigurationError(
            f"Expected 1 to {len(left)} texts, found {count}: that many are left when "
            f"{len(exclude)} subjects are excluded. Ask for fewer."
        )
    return left[:count]
