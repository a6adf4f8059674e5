"""A trained attacker: a network that reads subjects' names out of a gram matrix.

Li, Xu and Song, "Sentence Embedding Leaks More Information than You Expect: Generative
Embedding Inversion Attack to Recover the Whole Sentence" (GEIA), Findings of ACL 2023,
train a decoder from an embedding to its sentence; CollabEdit (ICLR 2025, section 6)
does so from ``K K^T``. Here the decoder gives each place of a name a distribution over
tokens, so that a name it was not trained on can be read, and every name has a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.privacy.subject_keys import SubjectKeys

_WIDTH, _DROPOUT_IN, _DROPOUT = 256, 0.3, 0.2
_BATCH, _LEARNING_RATE = 128, 4e-3
# For the mean and spread of the features.
_NUM_WARM_UP = 512


def name_tokens(lm: LanguageModel, subjects: Sequence[str]) -> Tensor:
    """Return each name's tokens, numbered by those that occur, ``(subject, place)``.

    Shorter names are filled up with a number of their own.
    """
    rows = [lm.tokenizer(subject).input_ids for subject in subjects]
    number = {token: i for i, token in enumerate(sorted({t for r in rows for t in r}))}
    length = max(map(len, rows))
    return torch.tensor(
        [[number[t] for t in row] + [len(number)] * (length - len(row)) for row in rows]
    )


def scaled_eigenvectors(factors: Tensor, count: int) -> Tensor:
    """Return the leading eigenvectors of ``F F^T``, each times its eigenvalue's root.

    They are a function of ``F F^T`` alone, up to rounding: signs are chosen so that the
    entry of largest magnitude is positive.

    Parameters
    ----------
    factors : Tensor
        ``F``, ``(..., d_key, n)``.
    count : int
        How many; zeros follow where the rank is lower.

    Returns
    -------
    Tensor
        ``(..., count, d_key)``, largest eigenvalue first.
    """
    # The eigenvectors of F^T F, which is small, turn F into those of F F^T.
    _, turns = torch.linalg.eigh(factors.mT @ factors)
    found = (factors @ turns).mT.flip(-2)[..., :count, :]
    largest = found.gather(-1, found.abs().argmax(dim=-1, keepdim=True))
    missing = count - found.shape[-2]
    return nn.functional.pad(found * largest.sign(), (0, 0, 0, missing))


@dataclass(frozen=True, eq=False)
class Inverter:
    """A trained decoder for uploads of one number of edits.

    Attributes
    ----------
    network : nn.Module
        From ``(batch, count * d_key)`` to ``(batch, place * token)``.
    mean, spread : Tensor
        Of the features in training.
    tokens : Tensor
        The candidates' names, ``(subject, place)``, as `name_tokens` numbers them.
    count : int
        Eigenvectors that are read: the number of edits.
    """

    network: nn.Module
    mean: Tensor
    spread: Tensor
    tokens: Tensor
    count: int

    def features(self, factors: Tensor) -> Tensor:
        """Return what the network reads of uploads ``(batch, d_key, n)``."""
        return scaled_eigenvectors(factors, self.count).float().flatten(1)

    def log_probabilities(self, factors: Tensor) -> Tensor:
        """Return those of every token at every place, ``(batch, place, token)``."""
        read = (self.features(factors) - self.mean) / self.spread
        outputs: Tensor = self.network(read)
        shape = (len(outputs), self.tokens.shape[1], -1)
        return outputs.view(shape).log_softmax(dim=-1)

    @torch.no_grad()
    def scores(self, factor: Tensor) -> Tensor:
        """Return the log probability of every candidate's name, ``(subject,)``.

        Parameters
        ----------
        factor : Tensor
            ``F``, ``(d_key, n)``, with ``F F^T`` the upload's gram matrix.
        """
        found = self.log_probabilities(factor[None])[0]
        places = torch.arange(found.shape[0])
        return found[places, self.tokens].sum(dim=1)


def train_inverter(
    keys: SubjectKeys,
    tokens: Tensor,
    subjects: Tensor,
    num_edits: int,
    *,
    steps: int = 300,
    seed: int = 0,
) -> Inverter:
    """Return a decoder trained on random uploads of these subjects.

    The loss is the mean negative log probability of the names of all edited subjects:
    as in the paper, one reading stands for the whole upload.

    Parameters
    ----------
    keys, tokens
        Of all candidates.
    subjects : Tensor
        Numbers of those to train on, ``(m,)``; the others' keys are never read.
    num_edits : int
        Edits of an upload, of as many subjects.
    steps : int
        Batches of 128 uploads.
    seed : int
        Of the weights, the uploads and the dropout; torch's own state stays as it is.
    """
    draws = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inverter = _untrained(keys, tokens, subjects, num_edits, draws)
        network = inverter.network
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=_LEARNING_RATE, weight_decay=0.05
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, _LEARNING_RATE, total_steps=steps
        )
        for _ in range(steps):
            members, factors = _uploads(keys, subjects, num_edits, _BATCH, draws)
            found = inverter.log_probabilities(factors)
            loss = -found.gather(2, tokens[members].mT).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    network.eval()
    return inverter


def _untrained(
    keys: SubjectKeys,
    tokens: Tensor,
    subjects: Tensor,
    num_edits: int,
    draws: torch.Generator,
) -> Inverter:
    size, num_outputs = num_edits * len(keys.keys), int(tokens.max()) + 1
    network = nn.Sequential(
        nn.Dropout(_DROPOUT_IN),
        nn.Linear(size, _WIDTH),
        nn.GELU(),
        nn.LayerNorm(_WIDTH),
        nn.Dropout(_DROPOUT),
        nn.Linear(_WIDTH, tokens.shape[1] * num_outputs),
    )
    zero, one = torch.zeros(size), torch.ones(size)
    raw = Inverter(network, zero, one, tokens, num_edits)
    _, factors = _uploads(keys, subjects, num_edits, _NUM_WARM_UP, draws)
    seen = raw.features(factors)
    # A feature that hardly varies must not be blown up.
    spread = seen.std(dim=0) + 1e-4
    return Inverter(network, seen.mean(dim=0), spread, tokens, num_edits)


def _uploads(
    keys: SubjectKeys,
    subjects: Tensor,
    num_edits: int,
    count: int,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return members ``(count, edit)`` of uploads and keys ``(count, d_key, edit)``."""
    order = torch.rand(count, len(subjects), generator=draws).topk(num_edits, dim=1)
    members = subjects[order.indices]
    return members, keys.draw(members, draws).movedim(0, 1).float()
