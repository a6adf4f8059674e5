"""What GRACE reads of a request: its key, and what the model says with a codebook."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.suffixes import upper_blocks
from flwr_collabedit.models.codebook import Codebook, applied_codebook
from flwr_collabedit.models.hooks import replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize


@dataclass(frozen=True)
class Question:
    """A request's bare prompt and target as one row; the blocks below are run once.

    Attributes
    ----------
    case_id : int or str
        The request's.
    layer : int
        Whose down projection the codebook stands at.
    input_ids : Tensor
        Prompt and target without its last token, ``(1, position)``.
    first_read : int
        The prompt's last token, after which the target follows.
    target_ids : Tensor
        ``(target,)``.
    below : Tensor or None
        What block ``layer`` reads, ``(1, position, d_model)``; ``None`` for block 0.
    key, output : Tensor
        What the down projection reads and puts out at ``first_read``, ``(d_key,)`` and
        ``(d_value,)``, at least float32. The codebook changes neither.
    """

    case_id: int | str
    layer: int
    input_ids: Tensor
    first_read: int
    target_ids: Tensor
    below: Tensor | None
    key: Tensor
    output: Tensor

    @classmethod
    @torch.no_grad()
    def read(cls, lm: LanguageModel, layer: int, request: EditRequest) -> "Question":
        """Run the model up to the layer on the request."""
        text = tokenize(
            *(lm.tokenizer, request.prompt),
            subject=request.subject,
            target=request.target_new,
        )
        ids = torch.tensor([text.input_ids[:-1]], device=lm.device)
        last, module = text.target_start - 1, lm.down_projection_name(layer)
        lower = [lm.block_name(layer - 1)] if layer else []
        with (
            trace(lm.model, [module], inputs=True) as inputs,
            trace(lm.model, [*lower, module], stop=True) as outputs,
        ):
            _decode(lm, ids)
        dtype = torch.promote_types(lm.dtype, torch.float32)
        key, output = (one[module][0, last].clone() for one in (inputs, outputs))
        return cls(
            request.case_id,
            layer,
            ids,
            last,
            torch.tensor(text.target_ids, device=lm.device),
            outputs[lower[0]] if lower else None,
            key.to(lm.device, dtype),
            output.to(lm.device, dtype),
        )

    def logits(self, lm: LanguageModel, codebook: Codebook) -> Tensor:
        """Return what the model predicts the target's tokens with, at least float32.

        ``(target, vocab)``; gradients flow to the codebook's values.
        """
        with ExitStack() as hooks:
            if self.below is not None:
                name, below = lm.block_name(self.layer - 1), self.below
                hooks.enter_context(upper_blocks(lm, self.layer - 1))
                hooks.enter_context(replace_output(lm.model, name, lambda _: below))
            hooks.enter_context(applied_codebook(lm, codebook))
            hidden = _decode(lm, self.input_ids)
        logits = lm.logits(hidden[0, self.first_read :])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def is_answered(self, lm: LanguageModel, codebook: Codebook) -> bool:
        """Return whether every token of the target is the model's first choice."""
        first = self.logits(lm, codebook).argmax(dim=1)
        return torch.equal(first, self.target_ids)


def _decode(lm: LanguageModel, input_ids: Tensor) -> Tensor:
    output: Tensor = lm.decoder(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        use_cache=False,
    ).last_hidden_state
    return output.to(lm.device)
