"""On an accelerator: the CPU's edits, float64 sums, weights in half precision."""

import pytest
import torch
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.memit import MemitEditor, MemitResult
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.text_quality import TextQuality
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas
from tests.pico import FAMILIES, pico_language_model

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no accelerator"),
]

CONTEXTS = ContextTemplates((("{}",), ("The day is long. {}", "So. {}")))
REQUESTS = [
    EditRequest(case_id=index, prompt=prompt, subject=subject, target_new=target)
    for index, (prompt, subject, target) in enumerate(
        [
            ("The capital of {} is", "France", "Rome"),
            ("{} plays the", "Miles Davis", "grand old piano"),
            ("In Paris the mother tongue of {} is", "Ada Byron", "Rome"),
        ]
    )
]
CASES = [
    EvaluationCase(
        request=request, target_true="London", paraphrase_prompts=("I think it is",)
    )
    for request in REQUESTS
]
CONFIG = MemitConfig(
    layers=(0, 1),
    num_gradient_steps=6,
    learning_rate=0.1,
    stop_loss=0.0,
    second_moment_weight=5.0,
    edits_per_batch=2,
)
TEXTS = [
    f"{word} {subject} is {word}"
    for word in ("The", "town", "in", "piano", "old", "English")
    for subject in ("Paris", "Rome", "Ada", "Miles Davis", "Byron")
]


def model(family: str, dtype: torch.dtype, device: str) -> LanguageModel:
    lm = pico_language_model(family, dtype=dtype)
    torch.nn.Module.to(lm.model, device)
    return lm


def second_moments(lm: LanguageModel) -> dict[str, Tensor]:
    moments = estimate_second_moments(
        lm, CONFIG.layers, TEXTS, num_samples=len(TEXTS), corpus_name="towns"
    )
    return {
        name: moment
        + 0.01 * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
        for name, moment in moments.items()
    }


def edited(lm: LanguageModel) -> MemitResult:
    return MemitEditor(lm, CONFIG, CONTEXTS, second_moments(lm)).edit(REQUESTS)


# GPT-J computes attention in float32 whatever the model's type. Gemma 2 casts a float64
# mask to float32, where it overflows: rows with padding come out as NaN.
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gemma2"])
def test_an_edit_is_the_cpus(family):
    tolerance = 1e-5 if family == "gptj" else 1e-8
    on_cpu = edited(model(family, torch.float64, "cpu"))
    on_device = edited(model(family, torch.float64, DEVICE))

    for name, expected in on_cpu.deltas.items():
        found = on_device.deltas[name]
        assert (found.dtype, found.device.type) == (torch.float64, DEVICE)
        assert expected.norm() > 1e-3
        assert (found.cpu() - expected).norm() < tolerance * expected.norm()


def test_scores_and_texts_are_the_cpus():
    quality = TextQuality(num_tokens=12)
    found, expected = (
        evaluate_cases(
            model("gpt2", torch.float64, device), CASES, text_quality=quality
        )
        for device in (DEVICE, "cpu")
    )

    assert found.texts == expected.texts
    assert found.generations == expected.generations
    for name, (total, count) in expected.sums.totals.items():
        assert found.sums.totals[name] == (pytest.approx(total, abs=1e-6), count)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama"])
def test_weights_in_half_precision_are_edited_by_sums_in_float64(family, dtype):
    lm = model(family, dtype, DEVICE)
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}

    result = edited(lm)

    after = lm.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert result.targets.z.dtype == torch.float32
    for delta in result.deltas.values():
        assert delta.dtype == torch.float64
        assert delta.isfinite().all()
        assert delta.norm() > 0
    wide = edited(model(family, torch.float32, DEVICE))
    gap = (result.targets.z - wide.targets.z).norm() / wide.targets.z.norm()
    assert gap < 0.1
    assert result.residual_norms_after.sum() < result.residual_norms_before.sum()
    with applied_deltas(lm, result.deltas):
        assert all(weight.dtype == dtype for weight in lm.model.parameters())


def test_the_memory_of_an_edit_is_given_back():
    lm = model("gpt2", torch.float32, DEVICE)
    edited(lm)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()

    edited(lm)

    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= held
