"""What the tests of the editors share: small requests, contexts and models."""

from typing import Any

import torch
from pico import pico_language_model

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
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


def config(**changes: Any) -> MemitConfig:
    """Return hyperparameters under which pico models move but do not finish."""
    values: dict[str, Any] = {
        "layers": (0, 1),
        "num_gradient_steps": 6,
        "learning_rate": 0.1,
        "stop_loss": 0.0,
        "second_moment_weight": 5.0,
    }
    return MemitConfig(**{**values, **changes})


def double_model(family: str, **changes: Any) -> LanguageModel:
    """Return a pico model in float64, where rounding leaves 1e-8 far behind."""
    return pico_language_model(family, dtype=torch.float64, **changes)
