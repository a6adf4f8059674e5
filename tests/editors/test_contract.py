"""What every editor promises, over the table of all: none can be added untested."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, pmet_config
from hypernetworks import gradient_step
from pico import pico_language_model

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editor_names import EditorName, needs_hypernetwork
from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.closed_forms import FORM_OF
from flwr_collabedit.editors.editor import Editor, EditResult, ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.fine_tuning_config import FineTuningConfig
from flwr_collabedit.editors.grace_config import GraceConfig
from flwr_collabedit.editors.hypernetwork_file import save_hypernetwork
from flwr_collabedit.editors.kinds import (
    KINDS,
    EditorParts,
    check_config,
    make_editor,
    read_config,
)
from flwr_collabedit.editors.malmen_config import MalmenConfig
from flwr_collabedit.editors.mend_config import MendConfig
from flwr_collabedit.editors.rome_config import RomeConfig
from flwr_collabedit.errors import CollabEditError, ConfigurationError
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.codebook import applied_edit
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import weight_shapes

FEW = REQUESTS[:2]
# Decay and divergence hold back more than so small a model has to gain.
_STRONG = {
    "second_moment_weight": 1e-3,
    "clamp_norm_factor": 4.0,
    "num_gradient_steps": 20,
    "kl_factor": 0.0,
    "weight_decay": 0.0,
}


def alpha_edit_config() -> AlphaEditConfig:
    given = config(**_STRONG).model_dump(exclude={"editor", "second_moment_weight"})
    return AlphaEditConfig(**given, nullspace_threshold=1.0, l2=1e-3)


def rome_config() -> RomeConfig:
    given = config(**_STRONG).model_dump(exclude={"editor", "second_moment_weight"})
    # What a random MLP puts out is small beside the residual stream.
    return RomeConfig(**{**given, "layers": (1,), "clamp_norm_factor": 40.0})


CONFIGS: Mapping[EditorName, Callable[[], EditorConfig]] = {
    "memit": lambda: config(**_STRONG),
    "pmet": lambda: pmet_config(**_STRONG),
    "alphaedit": alpha_edit_config,
    "rome": rome_config,
    "grace": lambda: GraceConfig(layers=(1,), radius=1e-3, num_gradient_steps=20),
    "malmen": lambda: MalmenConfig(layers=(0, 1)),
    "mend": lambda: MendConfig(layers=(0, 1)),
    "ft": lambda: FineTuningConfig(layers=(0, 1)),
}
WITHOUT_WEIGHTS = {"grace"}


@dataclass
class Subject:
    """An editor, its model and how to make it again."""

    name: EditorName
    lm: LanguageModel
    config: EditorConfig
    parts: EditorParts

    def make(self) -> Editor:
        return make_editor(self.lm, self.config, self.parts)


def parts_for(lm: LanguageModel, settings: EditorConfig, folder: Path) -> EditorParts:
    shapes = weight_shapes(lm, settings.layers)
    moments = {
        name: torch.linspace(0.1, 2, d_key, dtype=torch.float64).diag()
        for name, (_, d_key) in shapes.items()
    }
    file = None
    if needs_hypernetwork(settings.editor):
        file = folder / "hypernetwork.safetensors"
        save_hypernetwork(
            file, gradient_step(lm, settings.layers, form=FORM_OF[settings.editor])
        )
    return EditorParts(CONTEXTS, lambda: moments, file)


@pytest.fixture(params=["gpt2", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=sorted(KINDS))
def subject(request: pytest.FixtureRequest, family: str, tmp_path: Path) -> Subject:
    lm, settings = pico_language_model(family), CONFIGS[request.param]()
    return Subject(request.param, lm, settings, parts_for(lm, settings, tmp_path))


def state_of(lm: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in lm.model.state_dict().items()}


def traces_of(lm: LanguageModel) -> list[object]:
    """Return what an editor may have left on the model besides its weights."""
    modules = [
        (len(one._forward_hooks), len(one._forward_pre_hooks), one.training)
        for one in lm.model.modules()
    ]
    return [modules, [one.requires_grad for one in lm.model.parameters()]]


def assert_untouched(
    lm: LanguageModel, before: dict[str, torch.Tensor], traces: list[object]
) -> None:
    after = lm.model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())
    assert all(one.grad is None for one in lm.model.parameters())
    assert traces_of(lm) == traces


def assert_same(found: EditResult, expected: EditResult) -> None:
    assert found.deltas.keys() == expected.deltas.keys()
    for name, delta in expected.deltas.items():
        assert torch.equal(found.deltas[name], delta)
    if expected.codebook is not None:
        assert found.codebook is not None
        assert torch.equal(found.codebook.keys, expected.codebook.keys)
        assert torch.equal(found.codebook.values, expected.codebook.values)


def loss_of(lm: LanguageModel) -> float:
    cases = [EvaluationCase(request=request) for request in FEW]
    return sum(one.rewrite.expected.loss for one in score_cases(lm, cases))


def test_every_editor_is_in_this_table():
    assert CONFIGS.keys() == KINDS.keys()


def test_the_model_is_bit_identical_and_hooks_are_gone(subject: Subject):
    before, traces = state_of(subject.lm), traces_of(subject.lm)

    subject.make().edit(FEW)

    assert_untouched(subject.lm, before, traces)


def test_so_it_is_after_an_error_half_way(subject: Subject):
    before, traces = state_of(subject.lm), traces_of(subject.lm)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        subject.make().edit(FEW, progress=interrupt)

    assert_untouched(subject.lm, before, traces)


def test_the_same_edit_twice_is_the_same_to_the_bit(subject: Subject):
    first = subject.make().edit(FEW)
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    again = subject.make().edit(FEW)

    assert_same(again, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_edit_makes_the_targets_likelier(subject: Subject):
    result = subject.make().edit(FEW)
    before = loss_of(subject.lm)

    with applied_edit(subject.lm, result.deltas, result.codebook):
        after = loss_of(subject.lm)

    assert after < before


def test_it_changes_the_weights_of_its_layers_and_no_others(subject: Subject):
    result = subject.make().edit(FEW)

    shapes = weight_shapes(subject.lm, subject.config.layers)
    if subject.name in WITHOUT_WEIGHTS:
        assert result.codebook is not None
        shapes = {}
    assert {name: tuple(one.shape) for name, one in result.deltas.items()} == shapes
    assert all(one.dtype == torch.float64 for one in result.deltas.values())
    assert all(one.isfinite().all() for one in result.deltas.values())


def test_no_request_changes_nothing(subject: Subject):
    editor = subject.make()
    first = editor.edit(FEW)

    assert not any(one.any() for one in editor.edit(()).deltas.values())
    assert_same(editor.edit((), start=first), first)


def test_a_second_edit_goes_on_from_the_first(subject: Subject):
    editor = subject.make()
    first = editor.edit(FEW[:1])
    kept = {name: one.clone() for name, one in first.deltas.items()}

    second = editor.edit(FEW[1:], start=first)

    alone = editor.edit(FEW[1:])
    if subject.name in WITHOUT_WEIGHTS:
        assert second.codebook is not None
        assert first.codebook is not None
        entries = (len(first.codebook), len(second.codebook))
        assert entries == (1, 2)
        return
    assert all(torch.equal(first.deltas[name], one) for name, one in kept.items())
    assert any(
        not torch.equal(second.deltas[name], alone.deltas[name]) for name in kept
    )


def test_weights_are_not_edited_below_a_codebook(subject: Subject):
    if subject.name in WITHOUT_WEIGHTS:
        pytest.skip("it goes on with codebooks")
    grace = make_editor(subject.lm, CONFIGS["grace"](), subject.parts)
    start = ModelEdit(codebook=grace.edit(FEW[:1]).codebook)

    with pytest.raises(ConfigurationError, match="found a codebook"):
        subject.make().edit(FEW[1:], start=start)


def test_layers_that_the_model_does_not_have_are_refused(subject: Subject):
    elsewhere = subject.config.model_copy(update={"layers": (7,)})

    with pytest.raises(ConfigurationError, match="7"):
        check_config(subject.lm, elsewhere)
    with pytest.raises(CollabEditError):
        make_editor(subject.lm, elsewhere, subject.parts)


def test_progress_counts_up_to_all(subject: Subject):
    seen: list[int] = []

    subject.make().edit(FEW, progress=seen.append)

    assert seen == sorted(seen)
    assert seen[-1] == len(FEW)


def test_the_configuration_survives_json_and_refuses_unknown_names(subject: Subject):
    text = subject.config.to_json()

    assert read_config(text) == subject.config
    with pytest.raises(ConfigurationError, match="layerz"):
        read_config(text[:-1] + ', "layerz": [1]}')
