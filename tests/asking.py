"""What a server asks of one client with a small language model."""

import numpy as np

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import Arrays, digest, to_record
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.language_model import LanguageModel

MEMIT = MemitConfig(layers=(0, 1), num_gradient_steps=3, second_moment_weight=20.0)


def zeros(lm: LanguageModel) -> Arrays:
    return [np.zeros(shape) for shape in describe(lm, MEMIT.layers).shapes.values()]


def instruction(
    lm: LanguageModel, arrays: Arrays, **changes: object
) -> dict[str, str | int | bool]:
    """Return what asks for the first weight's statistics, on the given deltas."""
    model = describe(lm, MEMIT.layers)
    keys = [f"{name}/delta" for name in model.parameters]
    fields = {
        "server_round": 1,
        "round_id": digest(to_record(keys, arrays)),
        "fingerprint": model.fingerprint,
        "parameters": model.parameters,
        "measured": model.parameters[:1],
        "wire_dtype": "float64",
        "hyperparameters": MEMIT.to_json(),
        "contexts": ContextTemplates().to_json(),
        **changes,
    }
    return Instruction(**fields).to_config()
