"""One random model of every family, shared: tests here leave its weights unchanged."""

import pytest
import torch
from pico import FAMILIES, pico_language_model

from flwr_collabedit.models.language_model import LanguageModel


@pytest.fixture(params=FAMILIES, scope="session")
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return pico_language_model(request.param)


@pytest.fixture
def input_ids() -> torch.Tensor:
    """Two rows of twelve tokens: longer than the pico models' sliding window."""
    return torch.randint(5, 400, (2, 12))
