"""Second moments as a client has them: found when the server first asks for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.errors import SecondMomentError

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

    def __call__(self, memit: MemitConfig) -> Mapping[str, Tensor]:
        """Return the second moments.

        Raises
        ------
        SecondMomentError
            If the client has none.
        """
        if self.find is None:
            raise SecondMomentError(
                f"Client {self.name!r} is asked to edit alone, which needs second "
                "moments, and it has none. Give EditingClient its second_moments, or "
                "use CollabEdit with the 'synchronous' or 'frozen' schedule."
            )
        return self.find(memit)
