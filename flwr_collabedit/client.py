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
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.errors import ConfigurationError, PayloadError, SecondMomentError
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.instruction import Instruction
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.loading import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, read_weight
from flwr_collabedit.payloads import (
    RESIDUAL_SQUARE,
    Arrays,
    digest,
    to_record,
    unpack_deltas,
)
from flwr_collabedit.progress import ProgressLog
from flwr_collabedit.target_store import TargetStore

SecondMoments = Callable[[MemitConfig], Mapping[str, Tensor]]


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
    second_moments : callable or None
        Gives ``C0 = E[k k^T]``, ``(d_key, d_key)``, of every edited weight for a
        configuration, by weight name. Called only where the server asks clients to edit
        alone: with the ``local`` schedule and by the strategies that merge deltas.
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
    ) -> None:
        self.language_model = language_model
        self.rounds = rounds
        self.name = name
        self.targets = TargetStore(state_folder)
        self.results_folder = results_folder
        self.second_moments = second_moments

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
        instruction, memit, deltas = self._read(parameters, config)
        requests = self._requests(instruction.server_round)
        starts_round = self._digest(instruction, parameters) == instruction.round_id
        began = time.perf_counter()
        with applied_deltas(self.language_model, deltas):
            targets = self._targets(instruction, memit, requests, starts_round)
        measuring = time.perf_counter()
        work = EditWork(self.language_model, memit, instruction, deltas)
        if work.is_alone:
            arrays, square = work.edit_alone(requests, targets, self._moments(memit))
        else:
            arrays, square = work.measure(requests, targets)
        figures: dict[str, Scalar] = {
            RESIDUAL_SQUARE: square,
            "seconds-targets": measuring - began,
            "seconds-measure": time.perf_counter() - measuring,
        }
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
        instruction, memit, deltas = self._read(parameters, config)
        last = instruction.server_round or len(self.rounds)
        cases = [case for edits in self.rounds[:last] for case in edits]
        with applied_deltas(self.language_model, deltas):
            total = self._score(cases, instruction) + self._health(instruction, memit)
        loss = total.mean("target-loss") or 0.0
        return loss, len(cases), {**total.to_flat(), **instruction.reply_config()}

    def _read(
        self, parameters: Arrays, config: Mapping[str, Scalar]
    ) -> tuple[Instruction, MemitConfig, dict[str, Tensor]]:
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
        return instruction, memit, unpack_deltas(parameters, own)

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
    ) -> Tensor:
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
        self.targets.save(instruction, requests, found.z)
        return found.z

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
            residuals = stored.to(current) - current
            values[RESIDUAL_SQUARE] = float(residuals.square().sum())
        return MetricSums.of(values)
