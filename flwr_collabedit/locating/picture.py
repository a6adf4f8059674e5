"""A causal trace as a picture: where restoring gives the answer back."""

from collections.abc import Mapping, Sequence
from io import BytesIO

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.plots import COLOURS
from flwr_collabedit.locating.averages import TraceAverages
from flwr_collabedit.locating.causal_trace import Kind, Severed
from flwr_collabedit.locating.traced_prompt import ROLES, Role

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "Plots need matplotlib: install it by pip install 'flwr-collabedit[report]'."
    ) from error

_DPI, _WIDTH, _HEIGHT = 120, 11.0, 7.2
_COLOUR_MAP = "viridis"
_LABELS: Mapping[Severed, str] = {
    "nothing": "nothing severed",
    "mlp": "MLPs severed",
    "attention": "attention severed",
}


def draw_trace(
    averages: TraceAverages, chosen: Sequence[int], *, title: str, window: int
) -> bytes:
    """Return a PNG: effects by position and layer, and with modules severed.

    Parameters
    ----------
    averages : TraceAverages
        What is drawn.
    chosen : sequence of int
        The layers to edit, which are shaded; may be empty.
    title : str
        Above the picture.
    window : int
        Layers whose MLP (or attention) was restored at once.
    """
    buffer = BytesIO()
    _figure(averages, chosen, title, window).savefig(buffer, format="png")
    return buffer.getvalue()


def _figure(
    averages: TraceAverages, chosen: Sequence[int], title: str, window: int
) -> Figure:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2).flatten()
    around = f"{window} layers' " if window > 1 else ""
    titles: dict[Kind, str] = {
        "state": "Restoring a block's output",
        "mlp": f"Restoring {around}MLP",
        "attention": f"Restoring {around}attention",
    }
    for place, (kind, text) in zip(axes, titles.items(), strict=False):
        if kind in averages.indirect:
            _draw_map(figure, place, averages.indirect[kind], text)
        else:
            place.set_axis_off()
    _draw_severed(axes[-1], averages, chosen)
    return figure


def _draw_map(
    figure: Figure,
    axes: Axes,
    effects: Mapping[Role, Sequence[Estimate]],
    title: str,
) -> None:
    """Draw roles down and layers across, each map with its own scale from 0."""
    roles = [role for role in ROLES if role in effects]
    values = [[estimate.mean for estimate in effects[role]] for role in roles]
    most = max(max(map(max, values)), 1e-6)
    image = axes.imshow(values, cmap=_COLOUR_MAP, vmin=0, vmax=most, aspect="auto")
    axes.set_yticks(range(len(roles)), roles)
    axes.set(title=title, xlabel="layer")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    figure.colorbar(image, ax=axes, label="indirect effect")


def _draw_severed(axes: Axes, averages: TraceAverages, chosen: Sequence[int]) -> None:
    for colour, (severed, by_layer) in zip(
        COLOURS, averages.entering.items(), strict=False
    ):
        means = [estimate.mean for estimate in by_layer]
        widths = [estimate.half_width or 0.0 for estimate in by_layer]
        axes.errorbar(
            range(len(means)),
            means,
            yerr=widths,
            color=colour,
            marker="o",
            markersize=3,
            capsize=2,
            label=_LABELS[severed],
        )
    if chosen:
        axes.axvspan(
            chosen[0] - 0.5,
            chosen[-1] + 0.5,
            color="#8C8C8C",
            alpha=0.25,
            label="chosen",
        )
    axes.set(
        title="Restoring what enters a block, last subject token",
        xlabel="layer",
        ylabel="indirect effect",
    )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.legend(fontsize="small")
