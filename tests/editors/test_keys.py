import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, double_model

from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import collect_keys, current_values
from flwr_collabedit.models.language_model import LanguageModel

BARE = ContextTemplates()


def key_in(lm: LanguageModel, template: str, layer: int) -> torch.Tensor:
    """The key of the first request when ``template`` is its only context."""
    request = REQUESTS[0]
    filled = request.model_copy(
        update={"prompt": template.replace("{}", request.prompt)}
    )
    return collect_keys(lm, [filled], [layer], BARE)[layer][:, 0]


def test_a_key_is_half_the_bare_prompt_and_a_sixth_of_each_of_three_contexts():
    lm = double_model("gpt2")
    bare, *generated = (key_in(lm, template, 1) for template in CONTEXTS.templates)

    found = collect_keys(lm, REQUESTS[:1], [1], CONTEXTS)[1][:, 0]

    torch.testing.assert_close(found, bare / 2 + sum(generated) / 6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj"])
def test_a_key_is_the_projection_input_at_the_subjects_last_token(family: str):
    lm = double_model(family)
    request = REQUESTS[0]  # The capital of France is
    ids = lm.tokenizer(request.prompt.replace("{}", request.subject))["input_ids"]
    after = len(ids) - len(lm.tokenizer(" is", add_special_tokens=False)["input_ids"])
    seen: list[torch.Tensor] = []
    projection = lm.down_projection(1)
    handle = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    lm.model(torch.tensor([ids]))
    handle.remove()

    found = collect_keys(lm, REQUESTS, [0, 1], BARE)[1]

    assert found.shape[1] == len(REQUESTS)
    torch.testing.assert_close(found[:, 0], seen[0][0, after - 1])


def test_keys_and_values_do_not_depend_on_padding():
    lm = double_model("llama")

    one_by_one = collect_keys(lm, REQUESTS, [0, 1], CONTEXTS, rows_per_batch=1)
    together = collect_keys(lm, REQUESTS, [0, 1], CONTEXTS, rows_per_batch=100)

    torch.testing.assert_close(together, one_by_one)
    torch.testing.assert_close(
        current_values(lm, REQUESTS, config()),
        current_values(lm, REQUESTS, config(), rows_per_batch=1),
    )


def test_no_requests_give_no_columns():
    lm = double_model("gpt2")
    width = collect_keys(lm, REQUESTS, [1], CONTEXTS)[1].shape[0]

    assert collect_keys(lm, (), [1], CONTEXTS)[1].shape == (width, 0)
    assert current_values(lm, (), config()).shape == (0, lm.hidden_size)
