"""In which order layers are measured and how the residual is spread over them.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.3 and
Algorithm 1 spread the residual over the edited layers; DESIGN.md section 2 names the
schedules of a federated round.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from flwr_collabedit.errors import ConfigurationError, nearest

LayerSchedule = Literal["synchronous", "frozen"]
ResidualSplit = Literal["remaining", "uniform"]
DEFAULT_SPLITS: dict[str, ResidualSplit] = {
    "synchronous": "remaining",
    "frozen": "uniform",
}


def check_schedule(
    schedule: str, split: str | None
) -> tuple[LayerSchedule, ResidualSplit]:
    """Return the schedule and its split, the schedule's default one for ``None``.

    Raises
    ------
    ConfigurationError
        For an unknown name, and for ``synchronous`` with ``uniform``: measured again
        at every layer, equal shares would leave part of the residual unwritten.
    """
    schedules, splits = get_args(LayerSchedule), get_args(ResidualSplit)
    if schedule not in schedules:
        raise ConfigurationError(
            f"Unknown layer schedule {schedule!r}. {nearest(schedule, schedules)}"
        )
    chosen = DEFAULT_SPLITS[schedule] if split is None else split
    if chosen not in splits:
        raise ConfigurationError(
            f"Unknown residual split {chosen!r}. {nearest(chosen, splits)}"
        )
    if schedule == "synchronous" and chosen != "remaining":
        raise ConfigurationError(
            "The 'synchronous' schedule measures the residual again at every layer, so "
            f"its split must be 'remaining'; found {chosen!r}. Leave the split out."
        )
    return schedule, chosen  # type: ignore[return-value]  # both checked above


def residual_share(index: int, num_layers: int, split: ResidualSplit) -> float:
    """Return the share of the residual that the layer at ``index`` is to write.

    ``remaining`` gives ``1 / (layers left)``: with a residual measured again at every
    layer the whole of it is written once (MEMIT). Measured only once, as CollabEdit's
    published code does, the shares sum to more than one (2.28 for 5 layers).
    ``uniform`` gives ``1 / num_layers``.
    """
    return 1 / (num_layers - index) if split == "remaining" else 1 / num_layers


def exchange_groups(
    parameters: Sequence[str], schedule: LayerSchedule
) -> list[tuple[str, ...]]:
    """Return which parameters are measured together, in the order of the exchanges."""
    if schedule == "synchronous":
        return [(parameter,) for parameter in parameters]
    return [tuple(parameters)]
