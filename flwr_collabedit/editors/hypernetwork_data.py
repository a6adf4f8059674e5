"""Evaluation cases as the batches that a hypernetwork is trained on."""

import random
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import accumulate, pairwise

import torch

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.hypernetwork_config import (
    HypernetworkConfig,
    TrainingConfig,
)
from flwr_collabedit.editors.label_gradients import (
    LabelRow,
    Pair,
    count_columns,
    label_gradients,
)
from flwr_collabedit.editors.meta_step import MetaBatch
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize


class MetaBatches:
    """Draws batches of edits, each step's by itself, so that none has a state.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokens the rows are.
    cases : sequence of EvaluationCase
        Paraphrases are other wordings of an edit; neighborhood and other facts about
        the same subject are what it is to leave alone.
    training : TrainingConfig
        How many edits a batch has, and how many of them are asked about; its seed
        decides, with the step, the draw.

    Raises
    ------
    ConfigurationError
        If the cases have fewer subjects than a batch, or none has a question to keep.
    """

    def __init__(
        self,
        lm: LanguageModel,
        cases: Sequence[EvaluationCase],
        training: TrainingConfig,
    ) -> None:
        subjects = {case.request.subject for case in cases}
        most = max(training.edits_per_step, training.asked_per_step)
        if len(subjects) < most:
            raise ConfigurationError(
                f"Expected training facts about at least {most} subjects, the edits of "
                f"a batch; found {len(subjects)}. Give more facts, or make the batch "
                "smaller."
            )
        if not any(case.neighborhood or case.same_subject for case in cases):
            raise ConfigurationError(
                "Expected training facts with questions that an edit is to leave alone "
                "(neighborhood), found none. A hypernetwork that is not trained for "
                "locality damages the model; give a data set that has them."
            )
        self._cases, self._training = cases, training

        @cache
        def row(prompt: str, answer: str) -> LabelRow:
            return LabelRow.of(tokenize(lm.tokenizer, prompt, target=answer))

        self._row = row

    def batch(self, step: int) -> MetaBatch:
        """Return the edits of a step, and what is asked after them."""
        training = self._training
        rng = random.Random(f"{training.seed}/{step}")
        asked_about = training.asked_per_step
        widening = max(1.0, training.edits_per_step / asked_about)
        drawn = self._drawn(rng, round(asked_about * widening ** rng.random()))
        edited = {case.rewrite_prompt for case in drawn}
        wanted, kept = [], []
        for case in drawn[:asked_about]:
            target = case.request.target_new
            others = case.paraphrase_prompts
            prompts = [case.rewrite_prompt, *rng.sample(others, min(1, len(others)))]
            wanted += [self._row(prompt, target) for prompt in prompts]
            questions = [
                asked
                for asked in (*case.neighborhood, *case.same_subject)
                if asked.prompt not in edited
            ]
            few = rng.sample(questions, min(training.kept_per_edit, len(questions)))
            kept += [self._row(asked.prompt, asked.answer) for asked in few]
        return MetaBatch(
            tuple(case.request for case in drawn), tuple(wanted), tuple(kept)
        )

    def _drawn(self, rng: random.Random, num_edits: int) -> list[EvaluationCase]:
        """Return edits of as many subjects: two of one would contradict each other."""
        drawn: dict[str, EvaluationCase] = {}
        for case in rng.sample(self._cases, len(self._cases)):
            drawn.setdefault(case.request.subject, case)
            if len(drawn) == num_edits:
                break
        return list(drawn.values())


class EditGradients:
    """Gives the gradients of training edits, found once if they fit into memory.

    The base model does not change while a hypernetwork is trained.

    Parameters
    ----------
    lm : LanguageModel
        The base model.
    config : HypernetworkConfig
        Whose gradients.
    cases : sequence of EvaluationCase
        All training facts. They are read at the first call, in their order whatever is
        asked for, so that a training that goes on computes the very same.
    max_bytes : int
        More than this is not kept; nor are losses' means over a batch.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: HypernetworkConfig,
        cases: Sequence[EvaluationCase],
        *,
        max_bytes: int = 2**30,
    ) -> None:
        self._lm, self._config = lm, config
        self._requests = list(dict.fromkeys(case.request for case in cases))
        self._max_bytes = max_bytes

    def __call__(self, requests: Sequence[EditRequest]) -> dict[str, Pair]:
        """Return `label_gradients` of training edits."""
        if not self._are_kept:
            return self._read(requests)
        spans = [self._spans[request] for request in requests]
        columns = torch.cat([torch.arange(*span) for span in spans])
        return {
            name: (keys[:, columns], gradients[:, columns])
            for name, (keys, gradients) in self._all.items()
        }

    @cached_property
    def _are_kept(self) -> bool:
        width = sum(map(sum, self._config.weights.values()))
        num_columns = list(self._spans.values())[-1][1]
        fits = 8 * width * num_columns <= self._max_bytes
        return fits and self._config.reduction == "sum"

    @cached_property
    def _spans(self) -> dict[EditRequest, tuple[int, int]]:
        counts = count_columns(self._lm, self._requests, self._config.tokens)
        ends = list(accumulate(counts))
        return dict(zip(self._requests, pairwise([0, *ends]), strict=True))

    @cached_property
    def _all(self) -> dict[str, Pair]:
        return self._read(self._requests)

    def _read(self, requests: Sequence[EditRequest]) -> dict[str, Pair]:
        config = self._config
        return label_gradients(
            self._lm,
            list(config.weights),
            requests,
            tokens=config.tokens,
            reduction=config.reduction,
        )
