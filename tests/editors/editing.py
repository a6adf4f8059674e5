"""What the tests of the editors share: requests, models and the published ways."""

from collections.abc import Sequence
from typing import Any

import torch
from pico import pico_language_model
from plain_pmet import plain_pmet_target

from benchmarks.plain_memit import plain_target
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.models.language_model import LanguageModel

CONTEXTS = ContextTemplates(
    (("{}",), ("The day is long. {}", "I was in the old town. {}", "So. {}"))
)
# Subject first, in the middle and last; targets of one and of several tokens.
REQUESTS = tuple(
    EditRequest(case_id=index, prompt=prompt, subject=subject, target_new=target)
    for index, (prompt, subject, target) in enumerate(
        [
            ("The capital of {} is", "France", "Rome"),
            ("{} plays the", "Miles Davis", "grand old piano"),
            ("{}", "Ada", "English"),
            (
                "In the city of Paris the mother tongue of {} is now",
                "Ada Byron",
                "Rome",
            ),
            ("The very old town is twinned with {}", "Rome", "Paris in France"),
            ("{} is a", "I", "town"),
        ]
    )
)


# Hyperparameters under which pico models move but do not finish.
_MOVING: dict[str, Any] = {
    "layers": (0, 1),
    "num_gradient_steps": 6,
    "learning_rate": 0.1,
    "stop_loss": 0.0,
    "second_moment_weight": 5.0,
}


def config(**changes: Any) -> MemitConfig:
    """Return MEMIT's hyperparameters."""
    return MemitConfig(**{**_MOVING, **changes})


def pmet_config(**changes: Any) -> PmetConfig:
    """Return PMET's hyperparameters."""
    return PmetConfig(**{**_MOVING, "stop_divergence": None, **changes})


def plain_targets(
    lm: LanguageModel, settings: MemitConfig, requests: Sequence[EditRequest] = REQUESTS
) -> Targets:
    """Return the targets of the published way, one edit at a time."""
    target = plain_pmet_target if isinstance(settings, PmetConfig) else plain_target
    each = [target(lm, request, settings, CONTEXTS) for request in requests]
    return Targets(
        torch.stack([one.z for one in each]),
        torch.stack([one.initial for one in each]),
        torch.tensor([one.num_steps for one in each]),
        torch.tensor([one.loss for one in each], dtype=torch.float64),
    )


def assert_same(found: Targets, expected: Targets, tolerance: float = 1e-8) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(found.initial, expected.initial, **close)
    torch.testing.assert_close(found.loss, expected.loss, **close)
    torch.testing.assert_close(found.z, expected.z, **close)
    assert found.num_steps.tolist() == expected.num_steps.tolist()


def double_model(family: str, **changes: Any) -> LanguageModel:
    """Return a pico model in float64, where rounding leaves 1e-8 far behind."""
    return pico_language_model(family, dtype=torch.float64, **changes)
