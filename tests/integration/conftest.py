"""One small model and its second moments, shared: tests leave its weights unchanged."""

import pytest
import torch
from federating import second_moments
from pico import pico_language_model
from torch import Tensor

from flwr_collabedit.models.language_model import LanguageModel


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return pico_language_model("gpt2", dtype=torch.float64)


@pytest.fixture(scope="module")
def moments(lm: LanguageModel) -> dict[str, Tensor]:
    return second_moments(lm)
