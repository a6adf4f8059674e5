"""Which share of the pooled edit's scores a method retains.

FedLEKE gives it beside every federated score, in brackets (Tables 1 and 2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from simulations.comparison import Group
from simulations.settings import ExperimentSettings

_EDITING = (
    *("editor", "hyperparameters", "editor-options"),
    *("hypernetwork", "second-moment-weight"),
)
_DEFAULTS = ExperimentSettings().to_run_config()


def pooled_share(group: Group, facet: Sequence[Group], score: str) -> Estimate | None:
    """Return a method's score in percent of its pooled reference's, seed by seed.

    Parameters
    ----------
    group : Group
        The method; a reference, or the state before editing, has no share.
    facet : sequence of Group
        The groups of the same conditions. A method without a reference of its own
        takes one that edits as it does, with the same editor, network and
        hyperparameters; where such references differ, none.
    score : str
        A name of `Group.by_seed`.

    Returns
    -------
    Estimate or None
        ``None`` also if the reference lacks one of the method's seeds, or is 0 there.
    """
    if not group.runs:
        return None
    own = [other for other in facet if other.reference_for == group.method]
    references = own or _alike(group, facet)
    found = [other.by_seed.get(score, {}) for other in references]
    if not found or any(other != found[0] for other in found):
        return None
    return _ratio(group.by_seed.get(score, {}), found[0])


def _alike(group: Group, facet: Sequence[Group]) -> list[Group]:
    """Return the references of methods that edit as a method does."""
    alike = {g.method for g in facet if g.runs and _editing(g) == _editing(group)}
    return [other for other in facet if other.reference_for in alike]


def _editing(group: Group) -> list[Any]:
    # Older runs lack settings that came later.
    settings = {**_DEFAULTS, **group.runs[0].settings}
    return [settings[name] for name in _EDITING]


def _ratio(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> Estimate | None:
    if not values or not all(reference.get(seed) for seed in values):
        return None
    return Estimate.of([100 * value / reference[s] for s, value in values.items()])
