"""The layers to edit, from causal effects with and without the MLPs.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, edits a range of layers
at which severing the MLPs at the subject's last token takes most of a restored state's
effect ("we select the layers where the gap is largest"). It gives no threshold and no
width; the two numbers below are ours.
"""

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.locating.averages import TraceAverages

MOST_LAYERS = 6
"""The widest range that MEMIT was published with (GPT-J, layers 3 to 8)."""
LEAST_SHARE = 0.02
"""Least gap of an edited layer, as a share of the largest effect of restoring a state.

It decides in shallow models only, where fewer than `MOST_LAYERS` layers matter, and
lies between the third and fourth layer's shares of the embedded model
(docs/locating_layers.md).
"""


def choose_layers(
    averages: TraceAverages, *, most: int = MOST_LAYERS
) -> tuple[int, ...]:
    """Return the neighbouring layers to edit; none if no gap is sure.

    Around the layer with the largest gap, the neighbours whose gap is at least
    `LEAST_SHARE` of the largest effect are the layers whose MLPs matter. Of these, the
    ``most`` neighbouring ones whose gaps have the largest sum are chosen.

    Parameters
    ----------
    averages : TraceAverages
        Of which ``entering["nothing"]`` and ``gap["mlp"]`` are read.
    most : int
        Layers to choose at most, >= 1.

    Returns
    -------
    tuple of int
        Ascending, without holes. Empty where the interval of the largest gap reaches
        down to 0, and for a single fact, which has no interval.

    Raises
    ------
    ConfigurationError
        If ``most`` is less than 1.

    Notes
    -----
    The gap at a layer is that of the state which *enters* it, since that is what its
    own MLP reads. The papers' figures are drawn over the state that leaves a layer,
    which the layer's own MLP can no longer change: for one and the same gap they name
    the layer before.
    """
    if most < 1:
        raise ConfigurationError(f"Expected at least 1 layer to choose; found {most}.")
    gap = [estimate.mean for estimate in averages.gap["mlp"]]
    peak = max(range(len(gap)), key=gap.__getitem__)
    half_width = averages.gap["mlp"][peak].half_width
    if half_width is None or gap[peak] <= half_width:
        return ()
    least = LEAST_SHARE * max(at.mean for at in averages.entering["nothing"])
    start = stop = peak
    while start > 0 and gap[start - 1] >= least:
        start -= 1
    while stop + 1 < len(gap) and gap[stop + 1] >= least:
        stop += 1
    width = min(most, stop + 1 - start)
    first = max(
        range(start, stop + 2 - width),
        key=lambda layer: sum(gap[layer : layer + width]),
    )
    return tuple(range(first, first + width))
