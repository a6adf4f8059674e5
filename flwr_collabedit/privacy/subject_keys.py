"""The attacker's list: public subjects and the keys that edits of them would have."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flwr_collabedit.data.facts import FactWorld
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel

BARE = "{}"


@dataclass(frozen=True, eq=False)
class SubjectKeys:
    """Keys of every subject in several wordings.

    A key depends on the prompt up to the subject's last token only. The first wording
    is the bare subject, which is also that of every prompt that begins with it; the
    others have words before the subject.

    Attributes
    ----------
    subjects : tuple of str
        The candidates.
    keys : Tensor
        ``(d_key, subject, wording)``, float64.
    """

    subjects: tuple[str, ...]
    keys: Tensor

    @classmethod
    def of_world(
        cls,
        lm: LanguageModel,
        world: FactWorld,
        layer: int,
        contexts: ContextTemplates,
        *,
        num_wordings: int = 3,
        seed: int = 0,
    ) -> Self:
        """Return the keys of all subjects, as anybody who has the model computes them.

        Parameters
        ----------
        lm, layer, contexts
            What server and clients share.
        world : FactWorld
            Its subjects are the candidates, its templates the wordings.
        num_wordings : int
            Wordings with words before the subject, for each subject.
        seed : int
            Decides which of them, where the world has more.

        Raises
        ------
        ConfigurationError
            If a subject has fewer wordings.
        """
        rng = random.Random(seed)
        prompts = []
        for subject, facts in world.by_subject.items():
            # Only what comes before the subject matters: one template of each kind.
            kinds = {
                template.partition(BARE)[0]: template
                for fact in facts
                for template in (*fact.templates, *fact.held_out)
                if not template.startswith(BARE)
            }
            if len(kinds) < num_wordings:
                raise ConfigurationError(
                    f"Expected num_wordings of at most {len(kinds)}, the fewest that "
                    f"some subject has, found {num_wordings}. Ask for fewer."
                )
            drawn = rng.sample(sorted(kinds.values()), num_wordings)
            prompts += [(subject, template) for template in (BARE, *drawn)]
        requests = [
            EditRequest(case_id=i, prompt=prompt, subject=subject, target_new="-")
            for i, (subject, prompt) in enumerate(prompts)
        ]
        keys = collect_keys(lm, requests, [layer], contexts, rows_per_batch=512)[layer]
        subjects = tuple(world.by_subject)
        shape = (len(keys), len(subjects), 1 + num_wordings)
        return cls(subjects, keys.reshape(shape))

    @property
    def bare(self) -> Tensor:
        """Keys of the bare subjects, ``(d_key, subject, 1)``: no wording is known."""
        return self.keys[:, :, :1]

    def draw(
        self, members: Sequence[int] | Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return keys of the members, each in a random wording that is not bare.

        Returns
        -------
        Tensor
            ``(d_key, *members.shape)``.
        """
        chosen = torch.as_tensor(members)
        wording = torch.randint(
            1, self.keys.shape[2], chosen.shape, generator=generator
        )
        return self.keys[:, chosen, wording]
