"""A chat prompt is plain text that becomes the tokens a chat begins with."""

import pytest
from pico import BOS, Kind, pico_tokenizer
from transformers import PreTrainedTokenizerFast

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.chat_cases import chat_case
from flwr_collabedit.errors import ConfigurationError, RequestFormatError
from flwr_collabedit.models.chat import chat_prompt
from flwr_collabedit.models.tokens import tokenize

# After the published templates: the beginning of text in the template, a header before
# each turn, content trimmed.
LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start|>{{ message['role'] }}<|end|>\n\n{{ message['content'] | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Its answer follows the marker with nothing between.
INSTRUCT = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
MARKS = ["<|start|>", "<|end|>", "<|eot|>", "<|im_start|>", "<|im_end|>", "[/INST]"]
TEMPLATES = {"llama": LLAMA, "chatml": CHATML, "instruct": INSTRUCT}
PROMPT = "The capital of {} is"


def tokenizer_with(
    template: str, *, bos: bool, kind: Kind = "byte-level"
) -> PreTrainedTokenizerFast:
    tokenizer = pico_tokenizer(kind, bos=bos)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
@pytest.mark.parametrize(
    ("name", "bos"),
    [("llama", True), ("llama", False), ("chatml", False), ("instruct", True)],
)
def test_the_tokens_are_those_of_a_chat(name: str, bos: bool, kind: Kind) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name], bos=bos, kind=kind)
    prompt = PROMPT.replace("{}", "France")
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )

    written = chat_prompt(tokenizer, prompt)

    assert list(tokenize(tokenizer, written).input_ids) == expected
    assert expected.count(tokenizer.bos_token_id) == (name != "chatml")


@pytest.mark.parametrize("name", TEMPLATES)
def test_subject_and_target_are_found_in_a_chat(name: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name], bos=name != "chatml")

    template = chat_prompt(tokenizer, PROMPT)
    text = tokenize(tokenizer, template, subject="Germany", target="Paris")

    assert template.count("{}") == 1
    assert text.subject_last is not None
    before = tokenizer.decode(text.input_ids[: text.subject_last + 1])
    assert before.endswith("The capital of Germany")
    assert tokenizer.decode(text.target_ids).strip() == "Paris"
    start = tokenizer.decode(text.input_ids[: text.target_start])
    ends = {"llama": "assistant<|end|>\n\n", "chatml": "assistant\n"}
    assert start.endswith(ends.get(name, "[/INST]"))
    # No space between a template's line break and the answer.
    whole = tokenizer.decode(text.input_ids)
    assert whole.endswith(ends.get(name, "[/INST] ") + "Paris")


def test_a_plain_tokenizer_is_refused_with_a_remedy() -> None:
    tokenizer = pico_tokenizer()

    with pytest.raises(
        ConfigurationError, match=r"chat template.*chat_template\.jinja"
    ):
        chat_prompt(tokenizer, PROMPT)


@pytest.mark.parametrize(
    "template",
    [
        "{} {{ messages[0]['content'] }}",
        "{{ messages[0]['content'] | replace('{}', '') }}",
    ],
    ids=["one more", "one less"],
)
def test_a_template_that_changes_the_slot_is_refused(template: str) -> None:
    tokenizer = tokenizer_with(template, bos=False)

    with pytest.raises(RequestFormatError, match=r"without '\{\}'"):
        chat_prompt(tokenizer, PROMPT)


def test_a_template_that_fails_is_named() -> None:
    template = "{{ raise_exception('system turn first') }}"
    tokenizer = tokenizer_with(template, bos=False)

    with pytest.raises(ConfigurationError, match="failed: system turn first"):
        chat_prompt(tokenizer, PROMPT)


def test_a_word_of_the_prompt_is_no_beginning_of_text() -> None:
    tokenizer = pico_tokenizer(bos=True)

    assert tokenize(tokenizer, f"The {BOS} is").input_ids.count(0) == 2
    assert tokenize(tokenizer, f"{BOS}The word").input_ids.count(0) == 1


def test_a_case_is_put_into_the_chat_prompt_by_prompt() -> None:
    tokenizer = tokenizer_with(CHATML, bos=False)
    request = EditRequest(case_id=1, prompt=PROMPT, subject="France", target_new="Rome")
    case = EvaluationCase(request=request, paraphrase_prompts=("What is it?",))

    found = chat_case(tokenizer, case)

    assert found.request.prompt == chat_prompt(tokenizer, PROMPT)
    assert found.rewrite_prompt == chat_prompt(tokenizer, case.rewrite_prompt)
    assert found.paraphrase_prompts == (chat_prompt(tokenizer, "What is it?"),)
