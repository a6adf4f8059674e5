"""One slot of FedEdit at a client: write its own facts, then others' vectors.

Zhao et al. "FedLEKE", 2025, Algorithm 1; ``docs/fededit.md`` lists what it leaves open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.algebra.mediator import (
    MediatorVectors,
    contradicts,
    re_edit_statistics,
    select_relevant,
)
from flwr_collabedit.algebra.schedule import ResidualSplit, residual_share
from flwr_collabedit.client.personal_store import PersonalModel
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.mediator_payload import (
    Shapes,
    pack_vectors,
    unpack_vectors,
)
from flwr_collabedit.messages.payloads import Arrays
from flwr_collabedit.messages.personal_task import RE_EDIT_SQUARES, PersonalTask
from flwr_collabedit.models.language_model import LanguageModel

SecondMoments = Mapping[str, Tensor]


@dataclass(frozen=True)
class PersonalEditing:
    """What the two training messages of a slot do to a client's personal model.

    Parameters
    ----------
    lm : LanguageModel
        The base model; every call leaves it bit-identical.
    memit, instruction, task
        Hyperparameters and what the server asks.
    shapes : mapping of str to (int, int)
        ``(d_value, d_key)`` of every edited weight.
    second_moments : mapping of str to Tensor
        ``C0`` of each edited weight, ``(d_key, d_key)``.
    """

    lm: LanguageModel
    memit: MemitConfig
    instruction: Instruction
    task: PersonalTask
    shapes: Shapes
    second_moments: SecondMoments

    def share(
        self,
        model: PersonalModel,
        requests: Sequence[EditRequest],
        targets: Targets,
    ) -> tuple[PersonalModel, Arrays, float]:
        """Write the slot's own edits.

        Returns
        -------
        PersonalModel
            With the edits in.
        list of ndarray
            Their mediator vectors, see `flwr_collabedit.messages.mediator_payload`.
        float
            ``||R||_F^2`` of the undivided residuals before the edit.
        """
        contexts = ContextTemplates.from_json(self.instruction.contexts)
        editor = MemitEditor(self.lm, self.memit, contexts, self.second_moments)
        passes = editor.write(requests, targets.z, start=ModelEdit(model.deltas))
        keys = collect_keys(self.lm, requests, self.memit.layers, contexts)
        arrays = pack_vectors(
            MediatorVectors(
                targets.z,
                targets.z - targets.initial,
                {self.lm.weight_name(layer): found for layer, found in keys.items()},
                targets.num_steps.cpu(),
            ),
            self.instruction.wire_dtype,
        )
        # As the server sees them: both must select the same.
        vectors = unpack_vectors(arrays, self.shapes)
        residuals = {name: found for name, (_, found) in passes.measured.items()}
        deltas, bases = model.written(passes.deltas, residuals)
        shared = replace(
            model,
            slot=self.instruction.server_round,
            is_shared_only=True,
            deltas=deltas,
            bases=bases,
            own=MediatorVectors.join([model.own, vectors]),
            slot_size=len(vectors),
        )
        return shared, arrays, passes.residual_norms[0] ** 2

    def re_edit(
        self, model: PersonalModel, vectors: MediatorVectors
    ) -> tuple[PersonalModel, dict[str, int | float]]:
        """Write others' vectors in one batch, without any gradient step.

        A vector whose key is nearly that of an own edit or of a newer vector, with
        another target, is left out: own wins, then newest.

        Parameters
        ----------
        model : PersonalModel
            After `share`.
        vectors : MediatorVectors
            What came with the message, oldest first, in the order of
            ``task.provenance``.

        Returns
        -------
        PersonalModel
            With the vectors in.
        dict
            The counts ``selected``, ``conflicts``, ``reused`` and ``steps-saved``, and
            the squared norms of what was to write before and after.
        """
        selected = torch.arange(len(vectors))[self._is_selected(model, vectors)]
        vectors = vectors.take(selected)
        is_kept = ~_is_overruled(vectors, model.own, next(iter(self.shapes)))
        reused, index = vectors.take(is_kept), selected[is_kept]
        # PMET's target is what the last edited MLP puts out: that layer takes all.
        is_pmet = isinstance(self.memit, PmetConfig)
        split: ResidualSplit = "square-root" if is_pmet else "uniform"
        deltas, residuals, before, after = dict(model.deltas), {}, 0.0, 0.0
        for layer, name in enumerate(self.shapes):
            share = residual_share(layer, len(self.shapes), split)
            own = model.deltas[name]
            statistics = re_edit_statistics(reused, name, share, own)
            weight = self.memit.second_moment_weight
            prior = self.second_moments[name].cpu().double() * weight
            # Own edits are to stay what they are, as all that the model knew before.
            kept = model.own.keys[name].double()
            deltas[name] = own + solve_update(statistics, prior + kept @ kept.T)
            residuals[name] = share * reused.delta.T - own @ reused.keys[name]
            left = share * reused.delta.T - deltas[name] @ reused.keys[name]
            before += float(residuals[name].square().sum())
            after += float(left.square().sum())
        written, bases = model.written(deltas, residuals)
        names = tuple(self.task.provenance[i] for i in index.tolist())
        edited = replace(
            model,
            is_shared_only=False,
            deltas=written,
            bases=bases,
            received=model.received + names,
        )
        return edited, {
            "selected": len(selected),
            "conflicts": len(selected) - len(reused),
            "reused": len(reused),
            "steps-saved": int(reused.gradient_steps.sum()),
            **dict(zip(RE_EDIT_SQUARES, (before, after), strict=True)),
        }

    def _is_selected(self, model: PersonalModel, vectors: MediatorVectors) -> Tensor:
        known = set(model.received)
        is_new = torch.tensor([n not in known for n in self.task.provenance]).bool()
        if self.task.selection == "server":
            return is_new
        own = model.own.take(torch.arange(len(model.own))[-model.slot_size :])
        if model.slot_size == 0:
            own = own.take(torch.zeros(len(own), dtype=torch.bool))
        alike = self.task.similarity
        return is_new & select_relevant(
            getattr(vectors, alike), getattr(own, alike), self.task.alpha
        )


def _is_overruled(vectors: MediatorVectors, own: MediatorVectors, name: str) -> Tensor:
    """Return which vectors contradict an own edit or a newer vector."""
    by_own = contradicts(vectors, own, name).any(dim=1)
    newer = contradicts(vectors, vectors, name).triu(diagonal=1).any(dim=1)
    return by_own | newer
