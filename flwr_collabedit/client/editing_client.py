"""The client: one party's private edits behind Flower's ``NumPyClient``."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from flwr.client import NumPyClient
from flwr.common import Scalar

from flwr_collabedit.client.declaring_client import DeclaringClient
from flwr_collabedit.client.health import (
    HealthTexts,
    base_health,
    delta_norms,
    weight_norms,
)
from flwr_collabedit.client.local_client import LocalClient
from flwr_collabedit.client.local_store import LocalStore
from flwr_collabedit.client.own_edits import OwnEdits
from flwr_collabedit.client.personal_client import PersonalClient
from flwr_collabedit.client.personal_store import PersonalStore
from flwr_collabedit.client.round_targets import RoundTargets
from flwr_collabedit.client.scores import ClientScores, KnownCase
from flwr_collabedit.client.second_moments import FindMoments, SecondMoments
from flwr_collabedit.client.shared_client import SharedClient
from flwr_collabedit.client.target_store import TargetStore
from flwr_collabedit.client.upload_guard import FewEdits, UploadGuard
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.kinds import read_config, target_config
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.evaluation.metrics import MetricSums, prefixed
from flwr_collabedit.evaluation.text_quality import TextQuality
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    BASE,
    NUM_EDITS,
    RESIDUAL_SQUARE,
    SENDER,
    Arrays,
    unpack_deltas,
)
from flwr_collabedit.messages.personal_task import is_alone
from flwr_collabedit.models.codebook import applied_edit
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.language_model import LanguageModel


@lru_cache(maxsize=4)
def described(language_model: LanguageModel, layers: tuple[int, ...]) -> EditedModel:
    """Return `describe` of base weights, hashed once a process for each model."""
    return describe(language_model, layers)


class EditingClient(NumPyClient):
    """Edits and scores a party's own facts; only statistics of them leave it.

    The model is left bit-identical by every call, also by one that raises: Ray's
    actors serve many clients with one model.

    Parameters
    ----------
    language_model : LanguageModel
        The unedited model.
    rounds : sequence of sequence of EvaluationCase
        The party's edits of each round, first round first; none after the last.
    name : str
        Names the client in logs, in result files and to the server, which keeps what
        it contributed under it: it must stay the same over restarts.
    state_folder : Path
        The client's own; targets are kept there between the exchanges of a round.
    results_folder : Path or None
        Where per-case scores are written, one JSON line a case; they name facts and
        stay with the client. ``None`` writes nothing.
    known_case : callable or None
        Gives the case behind another client's mediator vector, by its provenance. Only
        a simulation knows it; where it does, what was received is scored too.
    second_moments : callable or None
        Gives ``C0 = E[k k^T]``, ``(d_key, d_key)``, of every edited weight for a
        configuration, by weight name. Called only where the server asks clients to edit
        alone: with the ``local`` schedule, by the strategies that merge deltas, by
        FedEdit and local-only.
    hypernetwork : Path or None
        File of the trained network that the editor needs (MALMEN, MEND), the same at
        every client: its fingerprint is in the server's hyperparameters.
    personal_folder : Path or None
        Where a model of the client's own is kept (FedEdit, local-only); ``None`` for
        the state folder.
    withdrawals : mapping of int to EditSet
        By round, the edits of earlier rounds that the party takes back in it.
    tag_key : TagKey or None
        The clients' shared key, with which they tag facts where the server asks for it.
    health : HealthTexts or None
        Text and prompts that no edit is to change; ``None`` measures weights only.
    text_quality : TextQuality or None
        How free text is written and judged, for fluency and consistency; ``None``
        writes none.
    secure_only : bool
        Whether to refuse to send anything of the edits but into secure aggregation.
    min_edits_per_upload : int
        Fewest edits of different subjects in a plain upload, which shows their sum; 1
        lets all pass. ``docs/privacy.md`` says what it gives.
    few_edits : {"refuse", "warn"}
        Whether fewer raise `flwr_collabedit.errors.PrivacyError`, so that the server
        has no reply of this client, or are sent with a warning in the client's log.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        rounds: Sequence[Sequence[EvaluationCase]],
        *,
        name: str,
        state_folder: Path,
        results_folder: Path | None = None,
        second_moments: FindMoments | None = None,
        personal_folder: Path | None = None,
        hypernetwork: Path | None = None,
        known_case: KnownCase | None = None,
        withdrawals: Mapping[int, EditSet] | None = None,
        tag_key: TagKey | None = None,
        health: HealthTexts | None = None,
        text_quality: TextQuality | None = None,
        secure_only: bool = False,
        min_edits_per_upload: int = 1,
        few_edits: FewEdits = "refuse",
    ) -> None:
        self.language_model = language_model
        self.edits = OwnEdits(rounds)
        self.name, self.secure_only = name, secure_only
        self.targets = RoundTargets(language_model, name, TargetStore(state_folder))
        self.health = health or HealthTexts()
        self.scores = ClientScores(
            language_model, name, results_folder, known_case, text_quality
        )
        self.second_moments = SecondMoments(name, second_moments)
        guard = UploadGuard(min_edits_per_upload, few_edits)
        self.shared = SharedClient(
            *(language_model, name, self.edits, self.targets),
            self.second_moments,
            guard,
            hypernetwork,
        )
        self.declaring = DeclaringClient(
            *(language_model, name, self.edits, self.targets),
            withdrawals or {},
            tag_key,
        )
        self.personal = PersonalClient(
            *(language_model, name),
            PersonalStore(personal_folder or state_folder),
            guard,
        )
        self.local = LocalClient(
            *(language_model, name),
            LocalStore(personal_folder or state_folder),
            self.second_moments,
            hypernetwork,
        )

    def fit(
        self, parameters: Arrays, config: dict[str, Scalar]
    ) -> tuple[Arrays, int, dict[str, Scalar]]:
        """Declare, measure or withdraw edits, as the server asks.

        Parameters
        ----------
        parameters : list of ndarray
            Cumulative delta ``(d_value, d_key)`` of every edited weight.
        config : dict
            An `Instruction`, as scalars.

        Returns
        -------
        list of ndarray
            Statistics or deltas of the measured weights, in the order of
            `flwr_collabedit.messages.payloads.array_keys`.
        int
            Number of edits; 1, the client's weight, for secure aggregation.
        dict
            Figures (numbers) and what the reply repeats of the instruction (text).

        Raises
        ------
        PayloadError
            If the client sends into secure aggregation only and plain arrays are asked
            for.
        """
        instruction, editor, own = self._read(config)
        if self.secure_only and instruction.measured and not instruction.secure:
            raise PayloadError(
                f"Client {self.name!r} sends what it measured into secure aggregation "
                "only. Give the server's CollabEditStrategy the option 'secure'."
            )
        arrays: Arrays = []
        figures: dict[str, Scalar]
        if instruction.phase == "declare":
            num_edits, figures = self.declaring.declare(
                parameters, instruction, editor, own
            )
        elif is_alone(instruction):
            requests = self._requests(instruction)
            num_edits = len(requests)
            figures = self.local.fit(instruction, editor, requests)
        elif instruction.personal:
            requests, memit = self._requests(instruction), target_config(editor)
            num_edits = len(requests)
            arrays, figures = self.personal.fit(
                *(parameters, instruction, memit, own, requests),
                find_targets=self.targets.find,
                second_moments=self.second_moments(memit),
            )
        else:
            arrays, num_edits, figures = self.shared.fit(
                parameters, instruction, editor, own
            )
        if instruction.secure:
            figures, num_edits = {**figures, NUM_EDITS: num_edits}, 1
        return arrays, num_edits, {**figures, **self._head(instruction)}

    def evaluate(
        self, parameters: Arrays, config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Score the cases edited so far; before the first round, all of them.

        Returns
        -------
        float
            Mean negative log probability of the new targets, in nats.
        int
            Number of cases.
        dict
            Sums and counts, see `flwr_collabedit.evaluation.metrics.MetricSums`.
        """
        instruction, editor, own = self._read(config)
        edit, received = self._edited(parameters, instruction, own)
        inactive = EditSet.from_json(instruction.inactive)
        active = self.edits.until(instruction.server_round, inactive)
        lm, names = self.language_model, instruction.parameters
        probe, base = base_health(lm, self.health)
        base = base + prefixed(BASE, weight_norms(lm, names)) + delta_norms(edit.deltas)
        with applied_edit(lm, edit.deltas, edit.codebook):
            total = base + probe.measure(lm) + weight_norms(lm, names)
            total = total + self.scores.own(active, instruction.server_round)
            total = total + self.scores.inactive(self.edits.inside(inactive))
            total = total + self.scores.received(received)
            total = total + self._residuals(instruction, editor)
        loss = total.mean("target-loss") or 0.0
        num_cases = sum(map(len, active.values()))
        return loss, num_cases, {**total.to_flat(), **self._head(instruction)}

    def _edited(
        self, parameters: Arrays, instruction: Instruction, own: EditedModel
    ) -> tuple[ModelEdit, tuple[str, ...]]:
        """Return what is changed in the model to score, and whose vectors it has."""
        if is_alone(instruction):
            return self.local.model(instruction).edit, ()
        if instruction.personal:
            model = self.personal.model(instruction, own)
            return ModelEdit(model.deltas), model.received
        return ModelEdit(unpack_deltas(parameters, own)), ()

    def _read(
        self, config: Mapping[str, Scalar]
    ) -> tuple[Instruction, EditorConfig, EditedModel]:
        instruction = Instruction.from_config(config)
        editor = read_config(instruction.hyperparameters)
        own = described(self.language_model, editor.layers)
        if own.fingerprint != instruction.fingerprint:
            raise PayloadError(
                f"Client {self.name!r} holds model {self.language_model.name!r} with "
                f"fingerprint {own.fingerprint[:12]}, but the server edits "
                f"{instruction.fingerprint[:12]}. Load the same model, revision and "
                "tokenizer on every party."
            )
        return instruction, editor, own

    def _head(self, instruction: Instruction) -> dict[str, str]:
        return {SENDER: self.name, **instruction.reply_config()}

    def _requests(self, instruction: Instruction) -> list[EditRequest]:
        inactive = EditSet.from_json(instruction.inactive)
        enlarged = EditSet.from_json(instruction.augmented)
        return self.edits.requests(instruction.server_round, inactive, enlarged)

    def _residuals(self, instruction: Instruction, editor: EditorConfig) -> MetricSums:
        """Return what is left of the round's residuals, where its targets are kept."""
        requests = self._requests(instruction)
        targets = self.targets.known(instruction, requests)
        if targets is None:
            return MetricSums()
        memit = target_config(editor)  # else there were none to keep
        current = current_values(self.language_model, requests, memit).double()
        residuals = targets.z.to(current) - current
        return MetricSums.of({RESIDUAL_SQUARE: float(residuals.square().sum())})
