"""Teacher-forced scores of evaluation cases, many prompts at a time.

The model reads every prompt together with a target, and the score is how well each
token of the target is predicted. This is how CounterFact and zsRE are scored in
print; it flatters (see ``generation``), since the model is shown how the target
begins.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import NonFiniteOutputError, RequestFormatError
from flwr_collabedit.evaluation.batches import Progress, batches_by_length
from flwr_collabedit.evaluation.case_score import (
    CaseScore,
    MultiHopScore,
    PromptScore,
    TargetScore,
)
from flwr_collabedit.evaluation.contests import (
    CaseContests,
    Contest,
    Text,
    contests_of,
    texts_of,
)
from flwr_collabedit.evaluation.forward import final_hidden
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import TokenizedText, tokenize


def score_cases(
    lm: LanguageModel,
    cases: Sequence[EvaluationCase],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[CaseScore]:
    """Return the score of every case, in the order of ``cases``.

    Texts are sorted by length, padded on the right and read ``batch_size`` at a time;
    a text that several cases ask about is read once. Logits are computed at the target
    positions only. The result depends on ``batch_size`` by rounding only.

    Parameters
    ----------
    lm : LanguageModel
        The model to score. It is not changed.
    cases : sequence of EvaluationCase
        A case without ``target_true`` has no rivals, hence no success metrics.
    batch_size : int
        Texts per forward pass, >= 1.
    progress : callable, optional
        Called after every batch with the number of texts done and of all.

    Raises
    ------
    RequestFormatError
        If a prompt with its target is longer than the model's context.
    NonFiniteOutputError
        If the model's logits are not finite.
    ConfigurationError
        If ``batch_size`` is less than 1.
    """
    contests = [contests_of(case) for case in cases]
    rows: dict[Text, TokenizedText] = {}
    for case, groups in zip(cases, contests, strict=True):
        for text in texts_of(groups):
            if text not in rows:
                rows[text] = _tokenize(lm, text, case.request.case_id)
    scores = _score_texts(lm, rows, batch_size, progress)
    return [
        _case_score(case, groups, scores)
        for case, groups in zip(cases, contests, strict=True)
    ]


def _tokenize(lm: LanguageModel, text: Text, case_id: int | str) -> TokenizedText:
    row = tokenize(lm.tokenizer, text.prompt, target=text.target)
    if len(row.input_ids) > lm.max_length:
        raise RequestFormatError(
            f"Case {case_id!r}: the prompt {text.prompt[:60]!r} with its target has "
            f"{len(row.input_ids)} tokens; {lm.name!r} reads at most {lm.max_length}. "
            "Shorten the prompt or leave the case out."
        )
    return row


def _score_texts(
    lm: LanguageModel,
    rows: Mapping[Text, TokenizedText],
    batch_size: int,
    progress: Progress | None,
) -> dict[Text, TargetScore]:
    texts = list(rows)
    lengths = [len(rows[text].input_ids) for text in texts]
    scores: dict[Text, TargetScore] = {}
    for indices in batches_by_length(lengths, batch_size, progress):
        batch = [texts[index] for index in indices]
        predictions = _predict_targets(lm, [rows[text] for text in batch])
        for text, (losses, hits) in zip(batch, predictions, strict=True):
            scores[text] = _target_score(lm, text, losses, hits)
    return scores


@torch.no_grad()
def _predict_targets(
    lm: LanguageModel, rows: Sequence[TokenizedText]
) -> list[tuple[Tensor, Tensor]]:
    """Return each row's loss and hit per target token; a token is read one ahead."""
    batch = pad_batch([row.input_ids for row in rows], lm.pad_token_id)
    batch = batch.to(lm.device)
    hidden = final_hidden(lm, batch)
    lengths = [len(row.target_ids) for row in rows]
    row_index = torch.arange(len(rows)).repeat_interleave(torch.tensor(lengths))
    positions = torch.cat(
        [torch.arange(row.target_start, len(row.input_ids)) for row in rows]
    )
    logits = lm.logits(hidden[row_index, positions - 1])  # (target token, vocab)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch.input_ids[row_index, positions]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    hits = logits.argmax(dim=-1) == targets
    per_row = torch.split(losses.cpu(), lengths), torch.split(hits.cpu(), lengths)
    return list(zip(*per_row, strict=True))


def _target_score(
    lm: LanguageModel, text: Text, losses: Tensor, hits: Tensor
) -> TargetScore:
    loss = losses.double().mean().item()
    if not torch.isfinite(losses).all():
        raise NonFiniteOutputError(
            f"{lm.name!r} predicts {text.target!r} after {text.prompt[:60]!r} with "
            f"loss {loss}; expected a finite number. An edit has destroyed the model, "
            "or its dtype overflows: check the delta's norm or use a wider dtype."
        )
    return TargetScore(
        target=text.target,
        loss=loss,
        token_accuracy=hits.double().mean().item(),
        correct=bool(hits.all()),
    )


def _case_score(
    case: EvaluationCase, groups: CaseContests, scores: Mapping[Text, TargetScore]
) -> CaseScore:
    rewrite, paraphrases, neighborhood, same_subject, hops = (
        tuple(_prompt_score(contest, scores) for contest in group) for group in groups
    )
    return CaseScore(
        case_id=case.request.case_id,
        rewrite=rewrite[0],
        paraphrases=paraphrases,
        neighborhood=neighborhood,
        same_subject=same_subject,
        multi_hop=_multi_hop(case, hops),
    )


def _multi_hop(
    case: EvaluationCase, prompts: Sequence[PromptScore]
) -> tuple[MultiHopScore, ...]:
    """Return the scores question by question; they come in the contests' order."""
    left = iter(prompts)
    return tuple(
        MultiHopScore(
            prompts=tuple(islice(left, len(asked.phrasings) * len(asked.answers)))
        )
        for asked in case.multi_hop
    )


def _prompt_score(contest: Contest, scores: Mapping[Text, TargetScore]) -> PromptScore:
    expected, *rival = (scores[text] for text in contest.texts())
    return PromptScore(
        prompt=contest.prompt,
        expected=expected,
        rival=rival[0] if rival else None,
    )
