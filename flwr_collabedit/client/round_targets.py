"""A client's targets: optimised once, kept between the exchanges of a round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import INFO

from flwr.common import log
from torch import Tensor

from flwr_collabedit.client.target_store import TargetStore, join_targets
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.targets import Targets, optimize_targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.progress import ProgressLog


@dataclass(frozen=True)
class RoundTargets:
    """Finds targets where they were kept, or optimises and keeps them.

    Parameters
    ----------
    lm : LanguageModel
        The base model; every call leaves it bit-identical.
    name : str
        The client's, for progress and errors.
    store : TargetStore
        In the client's own folder.
    """

    lm: LanguageModel
    name: str
    store: TargetStore

    def find(
        self,
        instruction: Instruction,
        memit: MemitConfig,
        requests: Sequence[EditRequest],
        deltas: Mapping[str, Tensor],
        starts_round: bool,
    ) -> Targets:
        """Return the targets of the requests, on the model that the round began with.

        Parameters
        ----------
        instruction, memit
            What they depend on.
        requests : sequence of EditRequest
            ``n`` edits.
        deltas : mapping of str to Tensor
            ``(d_value, d_key)``, of the model as it is now.
        starts_round : bool
            Whether that is the model that the round began with.

        Raises
        ------
        ConfigurationError
            If they were not kept and the model has moved on.
        """
        known, missing = self.store.load(instruction, requests)
        if missing and not starts_round:
            raise ConfigurationError(
                f"Client {self.name!r} has no targets for round "
                f"{instruction.server_round} in {self.store.folder}, and the model "
                "has moved on since the round began. Keep the state folder between "
                "messages."
            )
        if missing or not requests:
            with applied_deltas(self.lm, deltas):
                found = optimize_targets(
                    self.lm,
                    missing,
                    memit,
                    ContextTemplates.from_json(instruction.contexts),
                    progress=ProgressLog(f"{self.name}: targets", len(missing)),
                )
            if not requests:
                return found
            self.store.save(instruction, missing, found)
            known, _ = self.store.load(instruction, requests)
        kept = len(requests) - len(missing)
        log(INFO, "%s: targets: %s optimised, %s kept", self.name, len(missing), kept)
        return join_targets(known, requests)

    def known(
        self, instruction: Instruction, requests: Sequence[EditRequest]
    ) -> Targets | None:
        """Return the requests' targets if all of them were kept."""
        known, missing = self.store.load(instruction, requests)
        return None if missing or not requests else join_targets(known, requests)
