"""Every reason for which an edit will not work is found, and no other."""

import json
from pathlib import Path
from typing import Any

import pytest
from pico import pico_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from flwr_collabedit.data.loading import load_cases, load_conflict_pairs
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.generation import EXTRA_TOKENS
from flwr_collabedit.evaluation.record_check import (
    CONTEXT_TOKENS,
    check_cases,
)
from flwr_collabedit.models.tokenizer_loading import load_tokenizer
from flwr_collabedit.models.tokens import tokenize

SHARED = Path(__file__).parents[3] / "shared" / "data"


def case_of(
    subject: str = "France",
    prompt: str = "The capital of {} is",
    target: str = "Rome",
    *,
    true: str | None = None,
    relation: str = "",
    paraphrases: tuple[str, ...] = (),
    neighborhood: tuple[Question, ...] = (),
) -> EvaluationCase:
    return EvaluationCase(
        request=EditRequest(
            case_id=f"{subject}-{target}",
            prompt=prompt,
            subject=subject,
            target_new=target,
            relation_id=relation,
        ),
        target_true=true,
        paraphrase_prompts=paraphrases,
        neighborhood=neighborhood,
    )


def word_tokenizer(**components: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows a few words only and writes no spaces."""
    words = ["[UNK]", "The", "capital", "of", "France", "is", "Rome"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for name, component in components.items():
        setattr(tokenizer, name, component)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def kinds(tokenizer: Any, *cases: EvaluationCase, length: int | None = None) -> Any:
    return [(p.index, p.kind) for p in check_cases(tokenizer, cases, length)]


def test_good_cases_have_no_problem():
    cases = [
        case_of(true="Paris", paraphrases=("France is ruled from",)),
        case_of("Germany", true="Berlin"),
        case_of(prompt="The language of {} is", target="German"),
    ]

    assert check_cases(pico_tokenizer(), cases, 128) == []


def test_a_subject_without_a_token_is_an_error():
    without_hats = word_tokenizer(normalizer=normalizers.Replace("^", ""))

    (problem,) = check_cases(without_hats, [case_of("^^")], None)

    assert (problem.severity, problem.kind) == ("error", "subject")
    assert problem.is_error
    assert str(problem) == (
        "case '^^-Rome': subject: no token of 'The capital of {} is' is of '^^'"
    )


def test_a_target_without_tokens_is_an_error():
    without_hats = word_tokenizer(normalizer=normalizers.Replace("^", ""))

    assert kinds(without_hats, case_of(target="^^")) == [(0, "target")]


def test_a_prompt_and_target_in_one_token_are_an_error():
    whole = word_tokenizer(pre_tokenizer=pre_tokenizers.Split("\n", "removed"))
    found = kinds(whole, case_of(prompt="The\n{}\nis"))

    assert (0, "shared token") in found


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (case_of("Norway"), "the end of the subject 'Norway'"),
        (
            case_of(target="Oslo", paraphrases=("capital of is",)),
            "in the target 'Oslo'",
        ),
    ],
    ids=["subject", "target"],
)
def test_what_the_tokenizer_cannot_write_is_an_error(case: EvaluationCase, text: str):
    (problem,) = check_cases(word_tokenizer(), [case], None)

    assert (problem.severity, problem.kind) == ("error", "unknown token")
    assert problem.text == text
    assert kinds(word_tokenizer(), case_of()) == []


LONG = "so it is said, " * 3 + "the capital of Norway is"


@pytest.mark.parametrize(
    ("case", "prompt", "target", "room"),
    [
        (case_of(), "The capital of France is", "Rome", CONTEXT_TOKENS),
        (case_of(true="New Hamburg"), "The capital of France is", "New Hamburg", 12),
        (case_of(paraphrases=(LONG,)), LONG, "Rome", EXTRA_TOKENS),
        (
            case_of(neighborhood=(Question(prompt=LONG, answer="New Hamburg"),)),
            LONG,
            "New Hamburg",
            0,
        ),
    ],
    ids=["rewrite", "old answer", "paraphrase", "neighborhood"],
)
def test_every_text_must_fit_the_models_positions(
    case: EvaluationCase, prompt: str, target: str, room: int
):
    tokenizer = pico_tokenizer()
    needed = len(tokenize(tokenizer, prompt, target=target).input_ids) + room

    assert kinds(tokenizer, case, length=None) == []
    assert kinds(tokenizer, case, length=needed) == []
    (problem,) = check_cases(tokenizer, [case], needed - 1)
    assert (problem.severity, problem.kind) == ("error", "too long")
    assert f"needs {needed} of {needed - 1} positions" in problem.text


def test_a_cases_long_texts_are_told_together():
    case = case_of(paraphrases=(LONG, LONG + " now"))

    (problem,) = check_cases(pico_tokenizer(), [case], 8)

    assert problem.text.endswith("positions, 2 more do")


def test_what_others_say_of_the_fact_is_told():
    cases = [
        case_of(target="Rome"),
        case_of("FRANCE ", target="rome."),
        case_of(target="Bonn"),
        case_of(prompt="The language of {} is", target="Bonn"),
        case_of(prompt="{}'s main town is", target="Bonn", relation="P36"),
    ]

    problems = check_cases(pico_tokenizer(), cases, None)

    assert [(p.index, p.severity, p.kind) for p in problems] == [
        (1, "warning", "duplicate"),
        (2, "error", "contradiction"),
    ]
    assert problems[1].text == (
        "case 'France-Rome' gives 'France' 'Rome' already, this one 'Bonn'"
    )


def test_targets_that_cannot_be_told_apart_are_a_warning():
    same = case_of(target="Rome", true="rome.")
    alike = case_of("Japan", target="Parisian", true="Paris")
    apart = case_of("Italy", target="Berlin", true="Paris")

    problems = check_cases(pico_tokenizer(), [same, alike, apart], None)

    assert [(p.index, p.severity, p.kind) for p in problems] == [
        (0, "warning", "no change"),
        (1, "warning", "same first token"),
    ]


def test_a_slow_tokenizer_is_refused_and_progress_is_told():
    done: list[tuple[int, int]] = []

    check_cases(
        pico_tokenizer(),
        [case_of(), case_of("Japan")],
        None,
        progress=lambda *seen: done.append(seen),
    )

    assert done == [(1, 2), (2, 2)]
    with pytest.raises(ConfigurationError, match="fast tokenizer"):
        check_cases(ByT5Tokenizer(), [case_of()], None)


# --- the real tokenizer on the published records ---------------------------------


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedTokenizerFast:
    if not SHARED.is_dir():
        pytest.skip("the published records are not on this machine")
    return AutoTokenizer.from_pretrained(SHARED / "gpt2_tokenizer")


def published_requests(file: str) -> list[EditRequest]:
    path = SHARED / file
    if "conflict_" in file:
        return [case.request for pair in load_conflict_pairs(path) for case in pair]
    if "known" not in file:
        return [case.request for case in load_cases(path, data_format="")]
    return [
        EditRequest(
            case_id=record["known_id"],
            prompt=record["template"],
            subject=record["subject"],
            target_new=record["attribute"],
        )
        for record in json.loads(path.read_text())
    ]


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("multi_counterfact-50.json", 46),
        ("conflict/easy.json", 2500),
        ("conflict/easy_conflict_1000_p1.json", 2000),
        ("known_1000.json", 1209),
    ],
)
def test_the_subjects_last_token_is_right_in_every_published_record(
    gpt2: PreTrainedTokenizerFast, file: str, count: int
):
    """By decoding, which knows nothing of the offsets that it was found by.

    GPT-2's bytes lose nothing: the tokens up to the subject's last, decoded, reach the
    subject's end, and one token fewer does not. They may go beyond it only where
    GPT-2 itself joins the subject's end with what follows.
    """
    requests = published_requests(file)
    assert len(requests) == count
    beyond = 0
    for request in requests:
        text = tokenize(gpt2, request.prompt, subject=request.subject, target="x")
        full = request.prompt.replace("{}", request.subject)
        end = request.prompt.index("{}") + len(request.subject)
        assert text.subject_last is not None
        upto = gpt2.decode(text.input_ids[: text.subject_last + 1])
        before = gpt2.decode(text.input_ids[: text.subject_last])

        assert gpt2.decode(text.input_ids) == full + " x"
        assert full.startswith(upto)
        assert len(before.rstrip("\ufffd")) < end <= len(upto), request
        beyond += len(upto) > end

    assert beyond <= count // 50


@pytest.mark.parametrize(
    ("file", "usable"),
    [("multi_counterfact-50.json", 46), ("conflict/easy.json", 300)],
)
def test_published_records_can_all_be_used_with_gpt2(
    gpt2: PreTrainedTokenizerFast, file: str, usable: int
):
    cases = load_cases(SHARED / file, data_format="", limit=300)

    problems = check_cases(gpt2, cases, 1024)

    assert len(cases) == usable
    assert {problem.kind for problem in problems} <= {"same first token"}


def test_a_tokenizer_is_loaded_without_its_model(tmp_path: Path):
    pico_tokenizer().save_pretrained(tmp_path / "alone")

    embedded, positions = load_tokenizer("embedded")
    alone, unlimited = load_tokenizer(str(tmp_path / "alone"))

    assert positions == 64
    assert embedded("Paris")["input_ids"]
    assert unlimited is None
    assert len(alone) == len(pico_tokenizer())
    with pytest.raises(ConfigurationError, match=r"a folder with a tokenizer\.json"):
        load_tokenizer(str(tmp_path))
