"""The client: one party's private edits behind Flower's ``NumPyClient``."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from flwr.client import NumPyClient
from flwr.common import Scalar
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.edit_work import EditWork
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.methods import read_config
from flwr_collabedit.editors.targets import Targets, optimize_targets
from flwr_collabedit.errors import ConfigurationError, PayloadError, SecondMomentError
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.instruction import Instruction
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.loading import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, read_weight
from flwr_collabedit.payloads import (
    RECEIVED,
    RESIDUAL_SQUARE,
    Arrays,
    digest,
    to_record,
    unpack_deltas,
)
from flwr_collabedit.personal_client import PersonalClient
from flwr_collabedit.personal_store import PersonalStore
from flwr_collabedit.progress import ProgressLog
from flwr_collabedit.target_store import TargetStore

SecondMoments = Callable[[MemitConfig], Mapping[str, Tensor]]
KnownCase = Callable[[str], EvaluationCase]


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
        Names the client in logs and result files.
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
        alone: with the ``local`` schedule, by the strategies that merge deltas and by
        FedEdit.
    personal_folder : Path or None
        Where FedEdit's personal model is kept; ``None`` for the state folder.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        rounds: Sequence[Sequence[EvaluationCase]],
        *,
        name: str,
        state_folder: Path,
        results_folder: Path | None = None,
        second_moments: SecondMoments | None = None,
        personal_folder: Path | None = None,
        known_case: KnownCase | None = None,
    ) -> None:
        self.language_model = language_model
        self.rounds = rounds
        self.name = name
        self.targets = TargetStore(state_folder)
        self.results_folder = results_folder
        self.second_moments = second_moments
        self.personal = PersonalClient(
            language_model, name, PersonalStore(personal_folder or state_folder)
        )
        self.known_case = known_case

    def fit(
        self, parameters: Arrays, config: dict[str, Scalar]
    ) -> tuple[Arrays, int, dict[str, Scalar]]:
        """Measure this round's edits on the model that the server describes.

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
            `flwr_collabedit.payloads.array_keys`.
        int
            Number of edits.
        dict
            Figures (numbers) and what the reply repeats of the instruction (text).
        """
        instruction, memit, own = self._read(config)
        requests = self._requests(instruction.server_round)
        if instruction.personal:
            arrays, figures = self.personal.fit(
                *(parameters, instruction, memit, own, requests),
                find_targets=self._targets,
                second_moments=self._moments(memit),
            )
        else:
            deltas = unpack_deltas(parameters, own)
            arrays, figures = self._measure(
                parameters, instruction, memit, deltas, requests
            )
        return arrays, len(requests), {**figures, **instruction.reply_config()}

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
        instruction, memit, own = self._read(config)
        if instruction.personal:
            model = self.personal.model(instruction, own)
            deltas, received = model.deltas, model.received
        else:
            deltas, received = unpack_deltas(parameters, own), ()
        last = instruction.server_round or len(self.rounds)
        cases = [case for edits in self.rounds[:last] for case in edits]
        with applied_deltas(self.language_model, deltas):
            total = self._score(cases, instruction) + self._health(instruction, memit)
            total = total + self._score_received(received)
        loss = total.mean("target-loss") or 0.0
        return loss, len(cases), {**total.to_flat(), **instruction.reply_config()}

    def _measure(
        self,
        parameters: Arrays,
        instruction: Instruction,
        memit: MemitConfig,
        deltas: Mapping[str, Tensor],
        requests: Sequence[EditRequest],
    ) -> tuple[Arrays, dict[str, Scalar]]:
        """Measure the edits on the server's model, or write them into a copy."""
        starts_round = self._digest(instruction, parameters) == instruction.round_id
        began = time.perf_counter()
        with applied_deltas(self.language_model, deltas):
            targets = self._targets(instruction, memit, requests, starts_round)
        measuring = time.perf_counter()
        work = EditWork(self.language_model, memit, instruction, deltas)
        if work.is_alone:
            arrays, square = work.edit_alone(requests, targets.z, self._moments(memit))
        else:
            arrays, square = work.measure(requests, targets.z)
        return arrays, {
            RESIDUAL_SQUARE: square,
            "seconds-targets": measuring - began,
            "seconds-measure": time.perf_counter() - measuring,
        }

    def _read(
        self, config: Mapping[str, Scalar]
    ) -> tuple[Instruction, MemitConfig, EditedModel]:
        instruction = Instruction.from_config(config)
        memit = read_config(instruction.hyperparameters)
        own = described(self.language_model, memit.layers)
        if own.fingerprint != instruction.fingerprint:
            raise PayloadError(
                f"Client {self.name!r} holds model {self.language_model.name!r} with "
                f"fingerprint {own.fingerprint[:12]}, but the server edits "
                f"{instruction.fingerprint[:12]}. Load the same model, revision and "
                "tokenizer on every party."
            )
        return instruction, memit, own

    def _requests(self, server_round: int) -> list[EditRequest]:
        if server_round > len(self.rounds):
            return []
        return [case.request for case in self.rounds[server_round - 1]]

    def _digest(self, instruction: Instruction, parameters: Arrays) -> str:
        keys = [f"{name}/delta" for name in instruction.parameters]
        return digest(to_record(keys, parameters))

    def _targets(
        self,
        instruction: Instruction,
        memit: MemitConfig,
        requests: Sequence[EditRequest],
        starts_round: bool,
    ) -> Targets:
        """Return the round's targets, optimised on the model that it began with."""
        stored = self.targets.load(instruction, requests)
        if stored is not None:
            return stored
        if not starts_round:
            raise ConfigurationError(
                f"Client {self.name!r} has no targets for round "
                f"{instruction.server_round} in {self.targets.folder}, and the model "
                "has moved on since the round began. Keep the state folder between "
                "messages."
            )
        contexts = ContextTemplates.from_json(instruction.contexts)
        found = optimize_targets(
            self.language_model,
            requests,
            memit,
            contexts,
            progress=ProgressLog(f"{self.name}: targets", len(requests)),
        )
        self.targets.save(instruction, requests, found)
        return found

    def _moments(self, memit: MemitConfig) -> Mapping[str, Tensor]:
        if self.second_moments is None:
            raise SecondMomentError(
                f"Client {self.name!r} is asked to edit alone, which needs second "
                "moments, and it has none. Give EditingClient its second_moments, or "
                "use CollabEdit with the 'synchronous' or 'frozen' schedule."
            )
        return self.second_moments(memit)

    def _score(
        self, cases: Sequence[EvaluationCase], instruction: Instruction
    ) -> MetricSums:
        progress = ProgressLog(f"{self.name}: prompts scored", len(cases))
        evaluation = evaluate_cases(self.language_model, cases, progress=progress)
        if self.results_folder is not None:
            self.results_folder.mkdir(parents=True, exist_ok=True)
            file = f"{self.name}-round-{instruction.server_round}.jsonl"
            path = self.results_folder / file
            path.write_text(evaluation.to_json_lines(), encoding="utf-8")
        return evaluation.sums

    def _score_received(self, received: Sequence[str]) -> MetricSums:
        """Return the scores of others' facts, under ``received/``, where known."""
        if self.known_case is None or not received:
            return MetricSums()
        cases = [self.known_case(provenance) for provenance in received]
        found = evaluate_cases(self.language_model, cases).sums
        return MetricSums(
            {f"{RECEIVED}{k}": total for k, total in found.totals.items()}
        )

    def _health(self, instruction: Instruction, memit: MemitConfig) -> MetricSums:
        """Return norms of the edited weights and what is left of the residual."""
        values = {}
        for name in instruction.parameters:
            weight = read_weight(self.language_model.model, name).double()
            values[f"l1/{name}"] = float(weight.abs().sum())
            values[f"l2/{name}"] = float(weight.norm())
        requests = self._requests(instruction.server_round)
        stored = self.targets.load(instruction, requests) if requests else None
        if stored is not None:
            current = current_values(self.language_model, requests, memit).double()
            residuals = stored.z.to(current) - current
            values[RESIDUAL_SQUARE] = float(residuals.square().sum())
        return MetricSums.of(values)
