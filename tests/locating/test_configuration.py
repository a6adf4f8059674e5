"""What is written is what an editor reads."""

import json

import pytest
from pico import pico_language_model

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.locating.configuration import located_hyperparameters


def test_the_editor_reads_the_layers_and_defaults(tmp_path):
    lm = pico_language_model("gpt2", num_layers=4)
    path = tmp_path / "edit.json"
    path.write_text(json.dumps(located_hyperparameters(lm, (1, 2))))

    assert MemitConfig.from_published(path) == MemitConfig(layers=(1, 2), loss_layer=3)


def test_layers_that_the_model_lacks_are_refused():
    with pytest.raises(ConfigurationError, match="from 0 to 2"):
        located_hyperparameters(pico_language_model("gpt2"), (2, 3))
