"""Which share of the pooled edit's scores a method retains.

FedLEKE gives it beside every federated score, in brackets (Tables 1 and 2).
"""

from collections.abc import Mapping, Sequence

from flwr_collabedit.evaluation.intervals import Estimate
from simulations.comparison import Group


def pooled_share(group: Group, facet: Sequence[Group], score: str) -> Estimate | None:
    """Return a method's score in percent of its pooled reference's, seed by seed.

    Parameters
    ----------
    group : Group
        The method; a reference, or the state before editing, has no share.
    facet : sequence of Group
        The groups of the same conditions. A method without a reference of its own
        takes the one that is there; where references differ, none.
    score : str
        A name of `Group.by_seed`.

    Returns
    -------
    Estimate or None
        ``None`` also if the reference lacks one of the method's seeds, or is 0 there.
    """
    own = [other for other in facet if other.reference_for == group.method]
    references = own or [other for other in facet if other.reference_for]
    found = [other.by_seed.get(score, {}) for other in references]
    if not group.runs or not found or any(other != found[0] for other in found):
        return None
    return _ratio(group.by_seed.get(score, {}), found[0])


def _ratio(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> Estimate | None:
    if not values or not all(reference.get(seed) for seed in values):
        return None
    return Estimate.of([100 * value / reference[s] for s, value in values.items()])
