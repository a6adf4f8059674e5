import pytest
from pico import pico_language_model

from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.errors import ConfigurationError


def test_the_same_seed_gives_the_same_contexts():
    lm = pico_language_model("gpt2")

    first, second = (generate_contexts(lm, seed=3) for _ in range(2))

    assert first == second
    assert first != generate_contexts(lm, seed=4)


def test_contexts_are_the_bare_prompt_and_one_text_for_each_starter():
    lm = pico_language_model("gpt2")

    contexts = generate_contexts(lm, starters=("The", "I"), length=6, seed=0)

    bare, generated = contexts.groups
    assert bare == ("{}",)
    assert len(generated) == 2
    for starter, template in zip(("The", "I"), generated, strict=True):
        assert template.startswith(starter)
        assert template.endswith(". {}")
        assert template.count("{") == template.count("}") == 1


def test_a_key_weighs_groups_equally_and_contexts_equally_within_a_group():
    contexts = ContextTemplates((("{}",), tuple(f"{i}. {{}}" for i in range(5))))

    assert contexts.key_weights == pytest.approx((0.5, *(0.1,) * 5))


def test_json_keeps_the_groups():
    contexts = ContextTemplates((("{}",), ("Ça va. {}", "I. {}")))

    assert ContextTemplates.from_json(contexts.to_json()) == contexts


@pytest.mark.parametrize(
    "groups",
    [
        (),
        (("{}",), ()),
        (("The. {}",),),
        (("{}",), ("no slot",)),
        (("{}",), ("{} {}",)),
    ],
    ids=["none", "empty group", "bare prompt missing", "no slot", "two slots"],
)
def test_groups_of_another_form_are_refused(groups: tuple[tuple[str, ...], ...]):
    with pytest.raises(ConfigurationError):
        ContextTemplates(groups)
