import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import pico_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from flwr_collabedit.errors import (
    ConfigurationError,
    RequestFormatError,
    SubjectNotFoundError,
)
from flwr_collabedit.models.tokens import TokenizedText, tokenize

GPT2 = Path(__file__).parents[3] / "shared" / "data" / "gpt2_tokenizer"

KINDS: dict[str, dict[str, Any]] = {
    "byte-level": {},
    "byte-level with BOS": {"bos": True},
    "byte-level with BOS and EOS": {"bos": True, "eos": True},
    "byte-level with prefix space": {"add_prefix_space": True},
    "byte-level with trimmed offsets": {"trim_offsets": True},
    "byte-level trimmed, prefix space": {
        "add_prefix_space": True,
        "trim_offsets": True,
        "padding_side": "left",
    },
    "metaspace": {"kind": "metaspace"},
    "metaspace with BOS, left": {
        "kind": "metaspace",
        "bos": True,
        "padding_side": "left",
    },
    "legacy metaspace with BOS": {"kind": "legacy-metaspace", "bos": True},
}
# Template, subject, target.
CASES = {
    "middle": ("The mother tongue of {} is", "Danielle Darrieux", "English"),
    "start": ("{} belongs to the continent of", "Norway", "Asia"),
    "end": ("What is the capital of {}", "France", "Rome"),
    "once more before": ("Paris, oh Paris: the twin city of {} is", "Paris", "Rome"),
    "once more after": ("In {}, which is not Paris, Texas, they speak", "Paris", "a"),
    "unicode": ("{} lives in", "Zoë Šimek 漢字 😀", "Łódź"),
    "possessive": ("{}'s mother tongue is", "Angela Merkel", "German"),
    "punctuation": ("The founder of {}, as you know, is", "Apple Inc.", "Steve Jobs"),
    "ends in a space": ("The capital of {} is ", "Germany", "Berlin"),
    "ends in a new line": ("Where is {}?\n", "the Eiffel Tower", "in London"),
    "number": ("{} was founded in", "Yahoo!", "1976"),
}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return pico_tokenizer(**KINDS[request.param])


@pytest.fixture(scope="session")
def gpt2() -> PreTrainedTokenizerFast:
    if not GPT2.is_dir():
        pytest.skip(f"{GPT2} is not on this machine")
    return AutoTokenizer.from_pretrained(GPT2)


def decode(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> str:
    text = tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text.removeprefix(" ")  # of tokenizers that put one before every text


def check(
    tokenizer: PreTrainedTokenizerFast, template: str, subject: str, target: str
) -> TokenizedText:
    """Compare positions by offsets with what the decoder makes of the tokens."""
    text = tokenize(tokenizer, template, subject=subject, target=target)

    up_to_subject = template[: template.index("{}")] + subject
    last = text.subject_last
    assert last is not None
    assert decode(tokenizer, text.input_ids[: last + 1]).startswith(up_to_subject)
    assert not decode(tokenizer, text.input_ids[:last]).startswith(up_to_subject)
    before, first = template[: template.index("{}")], text.subject_first
    assert first is not None
    assert before.startswith(decode(tokenizer, text.input_ids[:first]))
    # The mark of the space before the subject may be a token of its own.
    assert not before.startswith(decode(tokenizer, text.input_ids[: first + 2]))
    assert subject in decode(tokenizer, text.input_ids[first : last + 1])
    assert tokenizer.decode(text.target_ids).strip() == target
    prompt = decode(tokenizer, text.input_ids[: text.target_start])
    assert prompt.rstrip(" ") == template.replace("{}", subject).rstrip(" ")
    return text


@pytest.mark.parametrize("case", CASES)
def test_positions_split_the_text_as_the_decoder_does(
    tokenizer: PreTrainedTokenizerFast, case: str
) -> None:
    check(tokenizer, *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_positions_are_right_for_the_real_gpt2_tokenizer(
    gpt2: PreTrainedTokenizerFast, case: str
) -> None:
    check(gpt2, *CASES[case])


def test_positions_are_right_for_real_records(gpt2: PreTrainedTokenizerFast) -> None:
    records = json.loads((GPT2.parent / "multi_counterfact-50.json").read_text())
    rewrites = [record["requested_rewrite"] for record in records]
    assert len(rewrites) > 40

    for r in rewrites:
        check(gpt2, r["prompt"], r["subject"], r["target_new"]["str"])


WORDS = st.text("aZ é漢😀\u0301'-.1", min_size=1, max_size=12).map(
    lambda text: " ".join(text.split())
)


@settings(max_examples=40, deadline=None)
@given(
    before=WORDS,
    subject=WORDS,
    after=WORDS,
    target=WORDS,
    kind=st.sampled_from(list(KINDS)),
)
def test_positions_are_right_for_any_text(
    before: str, subject: str, after: str, target: str, kind: str
) -> None:
    if all((before, subject, after, target)):
        check(pico_tokenizer(**KINDS[kind]), f"{before} {{}}{after}", subject, target)


def test_gpt2_ids_and_positions_are_the_known_ones(
    gpt2: PreTrainedTokenizerFast,
) -> None:
    text = tokenize(
        gpt2,
        "The mother tongue of {} is",
        subject="Danielle Darrieux",
        target="French",
    )

    # The| mother| tongue| of| Danielle| Dar|rie|ux| is| French
    assert text.input_ids == (464, 2802, 11880, 286, 39808, 7491, 5034, 2821, 318, 4141)
    assert (text.subject_first, text.subject_last) == (4, 7)
    assert (text.target_start, text.target_ids) == (9, (4141,))


def test_a_token_shared_with_punctuation_is_the_subjects_last(
    gpt2: PreTrainedTokenizerFast,
) -> None:
    # Y|ahoo|!'|s| CEO
    text = tokenize(gpt2, "{}'s CEO", subject="Yahoo!")

    assert gpt2.convert_ids_to_tokens(list(text.input_ids))[2] == "!'"
    assert text.subject_last == 2


def test_all_bytes_of_the_last_character_belong_to_the_subject() -> None:
    # é is the two bytes and tokens Ã and ©.
    text = tokenize(pico_tokenizer(), "{} é", subject="é")

    assert text.subject_last == 1


def test_a_beginning_of_text_token_moves_every_position_by_one() -> None:
    case = {"subject": "Norway", "target": "Asia"}
    without = tokenize(pico_tokenizer(), "{} is in", **case)

    for bos in (pico_tokenizer(bos=True), pico_tokenizer(bos=True, eos=True)):
        text = tokenize(bos, "{} is in", **case)
        assert text.input_ids == (bos.bos_token_id, *without.input_ids)
        assert text.subject_last == without.subject_last + 1
        assert text.target_start == without.target_start + 1


@pytest.mark.parametrize("template", ["{} is in", "{} is in "])
@pytest.mark.parametrize("target", ["Asia", " Asia", " Asia "])
def test_exactly_one_space_precedes_the_target(
    tokenizer: PreTrainedTokenizerFast, template: str, target: str
) -> None:
    text = tokenize(tokenizer, template, subject="Norway", target=target)

    assert text == tokenize(tokenizer, "{} is in", subject="Norway", target="Asia")


def test_without_a_target_the_target_starts_at_the_end(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = tokenize(tokenizer, "{} is in", subject="Norway")

    assert text.target_start == len(text.input_ids)
    assert text.target_ids == ()


def test_a_complete_prompt_is_taken_literally(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = tokenize(tokenizer, "Braces {} stay in", target="Rome")

    assert text.subject_first is text.subject_last is None
    assert decode(tokenizer, text.input_ids) == "Braces {} stay in Rome"


@pytest.mark.parametrize("template", ["no slot", "{} and {}"])
def test_a_template_needs_one_slot(template: str) -> None:
    with pytest.raises(RequestFormatError, match=r"exactly one '\{\}'"):
        tokenize(pico_tokenizer(), template, subject="Norway")


@pytest.mark.parametrize(("prompt", "target"), [("Norway", " "), (" ", "Norway")])
def test_a_blank_prompt_or_target_is_refused(prompt: str, target: str) -> None:
    with pytest.raises(RequestFormatError, match="not blank"):
        tokenize(pico_tokenizer(), prompt, target=target)


def test_a_target_within_the_prompts_last_token_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a b": 0, "?": 1}, unk_token="?"))
    )

    with pytest.raises(RequestFormatError, match="not apart after 'a'"):
        tokenize(tokenizer, "a", target="b")


@pytest.mark.parametrize("subject", [" ", "42"])
def test_a_subject_without_a_token_is_refused(subject: str) -> None:
    backend = Tokenizer(models.WordLevel({"is": 0, "?": 1}, unk_token="?"))
    backend.normalizer = normalizers.Replace("42", "")
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    with pytest.raises(SubjectNotFoundError, match=f"'{subject}'.*' {{}} is'"):
        tokenize(
            PreTrainedTokenizerFast(tokenizer_object=backend),
            " {} is",
            subject=subject,
        )


def test_spaces_around_a_subject_do_not_move_its_position() -> None:
    spaced = tokenize(pico_tokenizer(), "Is {} in", subject=" Norway ")
    plain = tokenize(pico_tokenizer(), "Is  {}  in", subject="Norway")

    assert spaced == plain


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"fast tokenizer.*ByT5Tokenizer"):
        tokenize(ByT5Tokenizer(), "{} is in", subject="Norway")
