"""Figures of results as PNG, all in one readable style.

Colours that colour-blind eyes tell apart and a marker a series, labelled axes with
units, the legend beside the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

from flwr_collabedit.evaluation.intervals import Estimate

try:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "Plots need matplotlib: install it by pip install 'flwr-collabedit[report]'."
    ) from error

# Okabe and Ito, Color Universal Design, 2008; without yellow, which is faint on white.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#E69F00", "#000000", "#8C8C8C"),
)
_MARKERS = "osD^vPX*"
_DPI, _PANEL_WIDTH, _PANEL_HEIGHT, _LEGEND_WIDTH = 120, 4.6, 3.6, 3.0


@dataclass(frozen=True)
class Series:
    """One line: estimates by position on the x axis.

    Attributes
    ----------
    label : str
        Shown in the legend; the same label has the same colour in every panel.
    points : Mapping of float or str to Estimate
        In the order of x; text makes a categorical axis.
    reference_for : str
        Label of the series that this one is the reference of: same colour, dashed.
    """

    label: str
    points: Mapping[float, Estimate] | Mapping[str, Estimate]
    reference_for: str = ""


@dataclass(frozen=True)
class Panel:
    """Axes with the series that are drawn on them.

    Attributes
    ----------
    title, x_label, y_label : str
        Labels name the unit.
    series : sequence of Series
        What is drawn.
    percent : bool
        Whether y runs from 0 to 100.
    log_y : bool
        Whether y is logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series] = field(default_factory=tuple)
    percent: bool = False
    log_y: bool = False


def draw_lines(panels: Sequence[Panel]) -> bytes:
    """Return a PNG of panels side by side, with 95 % intervals as error bars."""
    figure, all_axes = _figure(panels)
    styles = _styles(panels)
    for panel, axes in zip(panels, all_axes, strict=True):
        for series in panel.series:
            colour, marker = styles[series.reference_for or series.label]
            estimates = list(series.points.values())
            positions: list[float | str] = [*series.points]
            axes.errorbar(
                positions,
                [estimate.mean for estimate in estimates],
                yerr=[estimate.half_width or 0.0 for estimate in estimates],
                label=series.label,
                color=colour,
                marker=marker,
                markerfacecolor="white" if series.reference_for else colour,
                linestyle="--" if series.reference_for else "-",
                capsize=3,
            )
        if not any(isinstance(x, str) for s in panel.series for x in s.points):
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return _png(figure, all_axes)


def draw_bars(panels: Sequence[Panel]) -> bytes:
    """Return a PNG of panels side by side: one group of bars an x, one bar a series."""
    figure, all_axes = _figure(panels)
    styles = _styles(panels)
    for panel, axes in zip(panels, all_axes, strict=True):
        groups = list(dict.fromkeys(x for s in panel.series for x in s.points))
        width = 0.8 / max(len(panel.series), 1)
        for number, series in enumerate(panel.series):
            shift = (number - (len(panel.series) - 1) / 2) * width
            estimates = list(series.points.values())
            reference = bool(series.reference_for)
            colour = styles[series.reference_for or series.label][0]
            axes.bar(
                [groups.index(x) + shift for x in series.points],
                [estimate.mean for estimate in estimates],
                width,
                yerr=[estimate.half_width or 0.0 for estimate in estimates],
                label=series.label,
                color="white" if reference else colour,
                edgecolor=colour,
                hatch="//" if reference else None,
                capsize=2,
            )
        axes.set_xticks(range(len(groups)), [str(group) for group in groups])
    return _png(figure, all_axes)


def _figure(panels: Sequence[Panel]) -> tuple[Figure, list[Axes]]:
    size = (_PANEL_WIDTH * len(panels) + _LEGEND_WIDTH, _PANEL_HEIGHT)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    all_axes = [
        figure.add_subplot(1, len(panels), number + 1) for number in range(len(panels))
    ]
    for panel, axes in zip(panels, all_axes, strict=True):
        axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if panel.percent:
            axes.set_ylim(0, 105)
        if panel.log_y:
            axes.set_yscale("log", nonpositive="clip")
    return figure, all_axes


def _styles(panels: Sequence[Panel]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every label that is not a reference."""
    labels = dict.fromkeys(s.reference_for or s.label for p in panels for s in p.series)
    return {
        label: (COLOURS[i % len(COLOURS)], _MARKERS[(i // len(COLOURS) + i) % 8])
        for i, label in enumerate(labels)
    }


def _png(figure: Figure, all_axes: Sequence[Axes]) -> bytes:
    handles: dict[str, Artist] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside right upper",
        frameon=False,
        fontsize="small",
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
