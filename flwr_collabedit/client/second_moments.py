"""Second moments as a client has them: found when the server first asks for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.errors import ConfigurationError, SecondMomentError

FindMoments = Callable[[MemitConfig], Mapping[str, Tensor]]


@dataclass(frozen=True)
class SecondMoments:
    """Gives ``C0`` of each edited weight, ``(d_key, d_key)``, or says who lacks it.

    Parameters
    ----------
    name : str
        The client's.
    find : callable or None
        Gives them for a configuration, by parameter.
    """

    name: str
    find: FindMoments | None

    def __call__(self, config: EditorConfig) -> Mapping[str, Tensor]:
        """Return the second moments.

        Raises
        ------
        SecondMomentError
            If the client has none.
        ConfigurationError
            If the configuration is not of an editor that solves with them.
        """
        if self.find is None:
            raise SecondMomentError(
                f"Client {self.name!r} is asked to edit alone, which needs second "
                "moments, and it has none. Give EditingClient its second_moments, or "
                "use CollabEdit with the 'synchronous' or 'frozen' schedule."
            )
        if not isinstance(config, MemitConfig):
            raise ConfigurationError(
                f"Expected an editor that solves with second moments, found "
                f"{config.editor!r}. Ask for none."
            )
        return self.find(config)
