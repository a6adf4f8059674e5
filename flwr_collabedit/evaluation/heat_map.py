"""A matrix of efficacies as a picture: rounds down, the rounds edited across."""

from collections.abc import Sequence
from io import BytesIO

from flwr_collabedit.evaluation.forgetting import EfficacyMatrix

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "Plots need matplotlib: install it by pip install 'flwr-collabedit[report]'."
    ) from error

_DPI, _WIDTH, _HEIGHT = 120, 5.6, 4.4
# Perceptually uniform, in order also when printed grey.
_COLOURS, _UNKNOWN = "viridis", "#EEEEEE"
# Up to this many rounds there is room for the numbers.
_MOST_NUMBERS = 12


def draw_heat_map(
    matrix: EfficacyMatrix,
    *,
    title: str,
    label: str = "efficacy, %",
    ends: Sequence[int] = (),
) -> bytes:
    """Return a PNG of the matrix, its colours from 0 to 100.

    A row that is as bright as its diagonal has forgotten nothing. Up to 12 rounds the
    numbers are written in. What was not measured is grey.

    Parameters
    ----------
    matrix : EfficacyMatrix
        In percent.
    title : str
        Above the picture.
    label : str
        Beside the scale, with the unit.
    ends : sequence of int
        The number of each of the matrix's rounds, of one that stands for several that
        of the last; empty for 1, 2, ...
    """
    buffer = BytesIO()
    _figure(matrix, title, label, ends).savefig(buffer, format="png")
    return buffer.getvalue()


def _figure(
    matrix: EfficacyMatrix, title: str, label: str, ends: Sequence[int] = ()
) -> Figure:
    size = len(matrix.rows)
    numbers = dict(enumerate(ends or range(1, size + 1)))
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(_UNKNOWN)
    nan = float("nan")
    values = [
        [nan if value is None else value for value in row] + [nan] * (size - len(row))
        for row in matrix.rows
    ]
    image = axes.imshow(values, cmap=_COLOURS, vmin=0, vmax=100)
    gaps = len(numbers) < max(numbers.values())
    edits = "edits up to round, since the one before" if gaps else "edits of round"
    axes.set(title=title, xlabel=edits, ylabel="after round")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axis.set_major_formatter(lambda place, _: str(numbers.get(round(place), "")))
    if size <= _MOST_NUMBERS:
        for r, row in enumerate(matrix.rows):
            for s, value in enumerate(row):
                if value is not None:
                    colour = "black" if value > 60 else "white"
                    axes.text(
                        *(s, r, f"{value:.0f}"),
                        color=colour,
                        horizontalalignment="center",
                        verticalalignment="center",
                        fontsize="x-small",
                    )
    figure.colorbar(image, ax=axes, label=label)
    return figure
