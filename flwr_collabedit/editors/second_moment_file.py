"""Second moments on disk: a matrix and what it was estimated from.

The matrix enters every solve, so a file of another model or text is refused.
"""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flwr_collabedit.errors import SecondMomentError


@dataclass(frozen=True)
class SecondMomentSource:
    """What a second moment was estimated from; two are the same or not usable alike.

    Attributes
    ----------
    model : str
        Name of the model.
    weight : str
        Name of the weight whose inputs the keys are.
    fingerprint : str
        Of the model's configuration, tokenizer and this weight.
    d_key : int
        Width of the keys.
    corpus : str
        Name of the text.
    num_samples : int
        Documents read.
    max_length : int
        Tokens after which a document was cut.
    dtype : str
        Precision in which keys entered the float64 sums.
    """

    model: str
    weight: str
    fingerprint: str
    d_key: int
    corpus: str
    num_samples: int
    max_length: int
    dtype: str

    @property
    def file_name(self) -> str:
        """A name that differs wherever the settings do.

        The fingerprint is not in it: a file left by other weights under the same model
        name is to be refused, not passed over.
        """
        parts = [
            self.model,
            self.weight,
            self.corpus,
            f"{self.num_samples}x{self.max_length}",
            self.dtype,
        ]
        safe = [re.sub(r"[^\w.-]+", "_", part).strip("_") for part in parts]
        return "--".join(safe) + ".safetensors"


def save_second_moment(
    path: Path, matrix: Tensor, source: SecondMomentSource, *, num_tokens: int
) -> None:
    """Write a second moment and where it comes from, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {**asdict(source), "num_tokens": num_tokens}
    # Runs side by side may write the same file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(
        {"second_moment": matrix.cpu().contiguous()},
        part,
        metadata={"source": json.dumps(metadata)},
    )
    part.replace(path)


def load_second_moment(path: Path, expected: SecondMomentSource) -> Tensor:
    """Return the second moment in ``path``, float64 on the CPU.

    Raises
    ------
    SecondMomentError
        If the file does not hold the second moment of ``expected``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("source", "{}"))
            matrix: Tensor = file.get_tensor("second_moment")
    except (SafetensorError, OSError) as error:
        raise SecondMomentError(
            f"Expected a second moment in '{path}', but it cannot be read: {error}. "
            "Delete the file to estimate it again."
        ) from error
    for name, value in asdict(expected).items():
        if metadata.get(name) != value:
            raise _foreign(path, expected, name, value, metadata.get(name))
    if matrix.shape != (expected.d_key, expected.d_key):
        found = tuple(matrix.shape)
        shape = (expected.d_key, expected.d_key)
        raise _foreign(path, expected, "shape", shape, found)
    return matrix.double()


def _foreign(
    path: Path, source: SecondMomentSource, field: str, expected: object, found: object
) -> SecondMomentError:
    return SecondMomentError(
        f"Expected in '{path}' the second moment of {source.weight!r} of "
        f"{source.model!r} with {field} {expected!r}, found {found!r}. It belongs to "
        "another model or text: delete the file or choose another cache folder."
    )
