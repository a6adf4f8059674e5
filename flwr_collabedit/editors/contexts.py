"""Texts that are put before a prompt so that an edit holds in more than one context.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.2 and its
published code: the bare prompt and five texts that the model itself continues. All
parties of a federated edit must share one list, or their keys do not add up.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize

STARTERS = ("The", "Therefore", "Because", "I", "You")


@dataclass(frozen=True)
class ContextTemplates:
    """Context templates in groups; the first is the bare prompt ``"{}"``.

    Attributes
    ----------
    groups : tuple of tuple of str
        Every template has exactly one ``{}``, which stands for the request's prompt.

    Examples
    --------
    >>> contexts = ContextTemplates((("{}",), ("The sky. {}", "I am. {}")))
    >>> contexts.key_weights
    (0.5, 0.25, 0.25)
    >>> contexts.fill("{} is in")[1]
    'The sky. {} is in'
    """

    groups: tuple[tuple[str, ...], ...] = (("{}",),)

    def __post_init__(self) -> None:
        if not self.groups or not all(self.groups) or self.groups[0][0] != "{}":
            raise ConfigurationError(
                "Expected groups of context templates that begin with the bare prompt "
                f"'{{}}', found {self.groups!r}."
            )
        for template in self.templates:
            if template.count("{}") != 1:
                raise ConfigurationError(
                    "Expected exactly one '{}' for the prompt in a context template, "
                    f"found {template.count('{}')} in {template!r}."
                )

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates, group after group."""
        return tuple(template for group in self.groups for template in group)

    @property
    def key_weights(self) -> tuple[float, ...]:
        """Weight of each template in a key: equal for groups, then within a group."""
        return tuple(
            1 / (len(self.groups) * len(group)) for group in self.groups for _ in group
        )

    def fill(self, prompt: str) -> tuple[str, ...]:
        """Return ``prompt``, itself a template, in every context."""
        return tuple(template.replace("{}", prompt) for template in self.templates)

    def to_json(self) -> str:
        """Return the groups as JSON text."""
        return json.dumps(self.groups)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the templates that :meth:`to_json` wrote."""
        return cls(tuple(tuple(group) for group in json.loads(text)))


def generate_contexts(
    lm: LanguageModel,
    *,
    starters: Sequence[str] = STARTERS,
    length: int = 10,
    top_k: int = 5,
    seed: int = 0,
) -> ContextTemplates:
    """Return the bare prompt and one sampled continuation of each starter.

    The same model, arguments and seed give the same templates.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model; it is not changed.
    starters : sequence of str
        First words, one generated context each.
    length : int
        Tokens of a context in all, its starter included.
    top_k : int
        Every token is drawn from this many most likely ones.
    seed : int
        Seed of the draws; the published code uses none.
    """
    generator = torch.Generator().manual_seed(seed)
    generated = tuple(
        _as_template(_sample(lm, starter, length, top_k, generator))
        for starter in starters
    )
    return ContextTemplates((("{}",), generated) if generated else (("{}",),))


@torch.no_grad()
def _sample(
    lm: LanguageModel, starter: str, length: int, top_k: int, generator: torch.Generator
) -> str:
    """Continue ``starter`` to ``length`` tokens by top-k sampling."""
    ids = list(tokenize(lm.tokenizer, starter).input_ids)
    while len(ids) < length:
        inputs = torch.tensor([ids], device=lm.device)
        hidden = lm.decoder(
            input_ids=inputs, attention_mask=torch.ones_like(inputs)
        ).last_hidden_state  # (1, position, d)
        best = lm.logits(hidden[0, -1]).double().cpu().topk(top_k)
        drawn = torch.multinomial(best.values.softmax(0), 1, generator=generator)
        ids.append(int(best.indices[drawn]))
    return str(lm.tokenizer.decode(ids, skip_special_tokens=True))


def _as_template(text: str) -> str:
    """Clean a generated text as published, and put the prompt's slot after it."""
    text = unicodedata.normalize("NFKD", text).replace("\n\n", " ")
    return text.replace("{", " ").replace("}", " ") + ". {}"
