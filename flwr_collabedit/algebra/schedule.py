"""In which order layers are measured and how the residual is spread over them.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.3 and
Algorithm 1 spread the residual over the edited layers; Li et al. "PMET: Precise Model
Editing in a Transformer", AAAI 2024 spread it by square roots. ``docs/method.md``
compares the schedules of a federated round and proximal sweeps.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from flwr_collabedit.editor_names import EditorName, keeps_targets
from flwr_collabedit.errors import ConfigurationError, nearest

LayerSchedule = Literal["synchronous", "frozen", "local"]
ResidualSplit = Literal["remaining", "uniform", "square-root", "whole"]
# What an editor that keeps targets spreads a residual by that is measured again at
# every layer. Measured once (``frozen``), only equal shares write the whole of it.
_REMEASURED_SPLITS: dict[EditorName, ResidualSplit] = {
    "memit": "remaining",
    "pmet": "square-root",
    "alphaedit": "remaining",
}


def check_schedule(
    schedule: str | None, split: str | None, editor: EditorName = "memit"
) -> tuple[LayerSchedule, ResidualSplit]:
    """Return the schedule and its split, for ``None`` the one that the editor uses.

    That is ``synchronous`` with ``remaining`` (MEMIT, AlphaEdit) or ``square-root``
    (PMET), and for all three ``uniform`` with the ``frozen`` schedule. Editors that
    find out by themselves what each layer is to write (MALMEN, FT, ...) have
    ``frozen`` with ``whole`` and nothing else.

    Raises
    ------
    ConfigurationError
        For an unknown name, and for ``synchronous`` or ``local`` with ``uniform``:
        measured again at every layer, equal shares would leave part of the residual
        unwritten; for anything but ``frozen`` and ``whole`` where there is no choice.
    """
    if not keeps_targets(editor):
        if schedule not in (None, "frozen") or split not in (None, "whole"):
            raise ConfigurationError(
                f"{editor.upper()} finds what each layer writes by itself, all layers "
                f"on the same model; found layer schedule {schedule!r} and residual "
                f"split {split!r}. Leave both out."
            )
        return "frozen", "whole"
    schedule = schedule or "synchronous"
    schedules, splits = get_args(LayerSchedule), get_args(ResidualSplit)
    if schedule not in schedules:
        raise ConfigurationError(
            f"Unknown layer schedule {schedule!r}. {nearest(schedule, schedules)}"
        )
    default = "uniform" if schedule == "frozen" else _REMEASURED_SPLITS[editor]
    chosen = default if split is None else split
    if chosen not in splits:
        raise ConfigurationError(
            f"Unknown residual split {chosen!r}. {nearest(chosen, splits)}"
        )
    if chosen == "whole":
        raise ConfigurationError(
            f"{editor.upper()} has one residual for all layers, which 'whole' would "
            "write several times. Leave the split out."
        )
    if schedule != "frozen" and chosen == "uniform":
        raise ConfigurationError(
            f"The {schedule!r} schedule measures the residual again at every layer, so "
            "its split must be 'remaining' or 'square-root'; found 'uniform'. Leave "
            "the split out."
        )
    return schedule, chosen  # type: ignore[return-value]  # both checked above


def residual_share(index: int, num_layers: int, split: ResidualSplit) -> float:
    """Return the share of the residual that the layer at ``index`` is to write.

    ``remaining`` gives ``1 / (layers left)``: with a residual measured again at every
    layer the whole of it is written once (MEMIT). Measured only once, as CollabEdit's
    published code does, the shares sum to more than one (2.28 for 5 layers).
    ``square-root`` gives ``1 / sqrt(layers left)``: lower layers write more of it, and
    the last one still all that is left (PMET). ``uniform`` gives ``1 / num_layers``;
    ``whole`` gives 1, for layers with residuals of their own.
    """
    if split in ("uniform", "whole"):
        return 1.0 if split == "whole" else 1 / num_layers
    layers_left = num_layers - index
    return 1 / (layers_left if split == "remaining" else math.sqrt(layers_left))


def exchange_groups(
    parameters: Sequence[str], schedule: LayerSchedule
) -> list[tuple[str, ...]]:
    """Return which parameters are measured together, in the order of the exchanges."""
    if schedule == "synchronous":
        return [(parameter,) for parameter in parameters]
    return [tuple(parameters)]


def check_sweeps(
    schedule: LayerSchedule, split: ResidualSplit, sweeps: int, tolerance: float
) -> None:
    """Check how often the pass over the layers may be repeated.

    Raises
    ------
    ConfigurationError
        For fewer than one sweep, a tolerance out of range, and more than one sweep with
        ``frozen`` and ``remaining`` or ``square-root``, whose shares sum to more than
        one, so that it diverges, or with ``local``, which never measures what was
        merged. With ``synchronous`` no share overshoots: each is at most one of a
        residual that was measured after the layer before was written.
    """
    if sweeps < 1 or not 0 <= tolerance < 1:
        raise ConfigurationError(
            "Expected sweeps of at least 1 and a sweep tolerance from 0 to below 1, "
            f"found {sweeps} and {tolerance}."
        )
    if sweeps > 1 and split == "whole":
        raise ConfigurationError(
            f"The editor measures what each layer is to write once, found {sweeps} "
            "sweeps. Use one sweep, or an editor that keeps targets."
        )
    if sweeps > 1 and schedule == "frozen" and split != "uniform":
        raise ConfigurationError(
            f"The shares of the {split!r} split sum to more than one with the "
            f"'frozen' schedule, so that {sweeps} sweeps would diverge. Use the "
            "'uniform' split."
        )
    if sweeps > 1 and schedule == "local":
        raise ConfigurationError(
            f"The 'local' schedule never measures the merged model, found {sweeps} "
            "sweeps. Use one sweep, or the 'synchronous' or 'frozen' schedule."
        )


def sweeps_settled(norms: Sequence[float], tolerance: float) -> bool:
    """Return whether the sweep that has just ended is to be the last.

    Parameters
    ----------
    norms : sequence of float
        Norm of all edits' residuals at the start of every sweep so far.
    tolerance : float
        The last sweep is one that started with a residual whose norm differed by at
        most this share from that at the start of the sweep before it; 0 never stops.
        So no measurement is thrown away.
    """
    if tolerance == 0 or len(norms) < 2:
        return False
    return abs(norms[-2] - norms[-1]) <= tolerance * norms[-2]
