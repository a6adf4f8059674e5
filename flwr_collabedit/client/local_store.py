"""A client's own model on disk, with whatever editor it was edited."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.files import replacing
from flwr_collabedit.models.codebook import Codebook

FILE = "local_model.safetensors"
_DELTA, _CODEBOOK = "delta/", "codebook/"


@dataclass(frozen=True)
class LocalModel:
    """What a client has made of its model.

    Attributes
    ----------
    server_round : int
        The last round whose edits are in; 0 before the first.
    edit : ModelEdit
        What they have changed in the base model.
    """

    server_round: int = 0
    edit: ModelEdit = field(default_factory=ModelEdit)


@dataclass(frozen=True)
class LocalRun:
    """What a client's own model belongs to; another's is refused.

    Attributes
    ----------
    run_id, fingerprint, hyperparameters : str
        Of the run, of the base model, and of the editor, as JSON.
    """

    run_id: str
    fingerprint: str
    hyperparameters: str


class LocalStore:
    """One safetensors file, replaced whole.

    Parameters
    ----------
    folder : Path
        Owned by one client; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def load(self, run: LocalRun) -> LocalModel:
        """Return the model, tensors on the CPU, or the base model if there is none.

        Raises
        ------
        ConfigurationError
            If the file belongs to another run, model or editor, or is damaged.
        """
        if not self.path.exists():
            return LocalModel()
        try:
            with safe_open(self.path, framework="pt") as file:
                head = json.loads((file.metadata() or {})["local"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = vars(run)
            found = {name: head[name] for name in expected}
            server_round, module = int(head["server_round"]), head["module"]
        except (SafetensorError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"Expected a client's own model in {self.path}, but it cannot be read: "
                f"{error}. Start the run anew, in a folder of its own."
            ) from error
        for name, value in expected.items():
            if found[name] != value:
                raise ConfigurationError(
                    f"Expected the client's own model of {name} {value!r} in "
                    f"{self.path}, found {found[name]!r}. Give each run a folder of "
                    "its own, or go on with the run that the folder belongs to."
                )
        own = {
            name.removeprefix(_CODEBOOK): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(_CODEBOOK)
        }
        deltas = {name.removeprefix(_DELTA): one for name, one in tensors.items()}
        book = Codebook(module, **own) if module else None
        return LocalModel(server_round, ModelEdit(deltas, book))

    def save(self, model: LocalModel, run: LocalRun) -> None:
        """Write the model; a reader sees the whole file or the one before."""
        edit = model.edit
        tensors = {
            f"{_DELTA}{name}": one.double().cpu().contiguous()
            for name, one in edit.deltas.items()
        }
        module = ""
        if edit.codebook is not None:
            module = edit.codebook.module
            found = edit.codebook.tensors().items()
            tensors |= {f"{_CODEBOOK}{name}": one for name, one in found}
        head = {**vars(run), "server_round": model.server_round, "module": module}
        with replacing(self.path) as draft:
            save_file(tensors, draft, metadata={"local": json.dumps(head)})
