"""What a client says of its edits before it edits them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.common import Scalar

from flwr_collabedit.client.own_edits import OwnEdits
from flwr_collabedit.client.round_targets import RoundTargets
from flwr_collabedit.client.shared_client import starts_round
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.kinds import target_config
from flwr_collabedit.editors.residuals import clamp_fractions, relative_residuals
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.presence import answers_already
from flwr_collabedit.fact_tags import RequestTags, TagKey, key_check, tag_request
from flwr_collabedit.messages.declaration import DECLARATION, Declaration
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import Arrays, unpack_deltas
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas


@dataclass(frozen=True)
class DeclaringClient:
    """Tags facts, measures what the model has already, and takes edits back.

    Parameters
    ----------
    lm : LanguageModel
        The base model; every call leaves it bit-identical.
    name : str
        The client's.
    edits, targets
        The party's edits; finds or optimises their targets.
    withdrawals : mapping of int to EditSet
        By round, the edits of earlier rounds that the party takes back in it.
    tag_key : TagKey or None
        With which facts are tagged.
    """

    lm: LanguageModel
    name: str
    edits: OwnEdits
    targets: RoundTargets
    withdrawals: Mapping[int, EditSet]
    tag_key: TagKey | None

    def declare(
        self,
        parameters: Arrays,
        instruction: Instruction,
        config: EditorConfig,
        own: EditedModel,
    ) -> tuple[int, dict[str, Scalar]]:
        """Return the number of the round's edits, and the declaration as text.

        Raises
        ------
        ConfigurationError
            If tags are asked for and there is no key.
        """
        requests = self.edits.requests(instruction.server_round)
        tags, check = self._tags(requests) if instruction.tagged else ([], "")
        taken_back = self.withdrawals.get(instruction.server_round, EditSet())
        found = Declaration(
            num_edits=len(requests),
            fact_tags=tuple(tag.fact for tag in tags),
            target_tags=tuple(tag.target for tag in tags),
            key_check=check,
            presence=self._presence(parameters, instruction, config, own, requests),
            take_back=taken_back.to_json(),
        )
        return len(requests), {DECLARATION: found.model_dump_json()}

    def _tags(self, requests: Sequence[EditRequest]) -> tuple[list[RequestTags], str]:
        if self.tag_key is None:
            raise ConfigurationError(
                f"The server asks for tags of facts, and client {self.name!r} has no "
                "conflict key. Give EditingClient the tag_key that all clients share."
            )
        key = self.tag_key
        return [tag_request(key, request) for request in requests], key_check(key)

    def _presence(
        self,
        parameters: Arrays,
        instruction: Instruction,
        config: EditorConfig,
        own: EditedModel,
        requests: Sequence[EditRequest],
    ) -> tuple[float, ...]:
        """Return how much of each edit the server's model has already, 0 to 1."""
        if not instruction.presence:
            return ()
        deltas = unpack_deltas(parameters, own)
        if instruction.presence == "answer":
            with applied_deltas(self.lm, deltas):
                return tuple(map(float, answers_already(self.lm, requests)))
        memit = target_config(config)
        seen = deltas if instruction.measured_on == "current" else {}
        is_start = starts_round(instruction, parameters)
        targets = self.targets.find(instruction, memit, requests, seen, is_start)
        if instruction.measured_on == "current":
            # Optimised on the model that may have the edit: near by where it does.
            left = clamp_fractions(targets, memit)
        else:
            with applied_deltas(self.lm, deltas):
                left = relative_residuals(self.lm, requests, targets, memit)
        return tuple((1 - left).clamp(0, 1).tolist())
