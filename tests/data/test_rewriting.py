import pytest
from pydantic import ValidationError

from flwr_collabedit.data.requests import (
    EditRequest,
    EvaluationCase,
    MultiHopQuestion,
    Question,
)
from flwr_collabedit.data.rewriting import rewritten

CASE = EvaluationCase(
    request=EditRequest(
        case_id=7,
        prompt="{} is in",
        subject="Rome",
        target_new="Peru",
        relation_id="P1",
    ),
    target_true="Italy",
    paraphrase_prompts=("Where is Rome? In", "Rome lies in"),
    neighborhood=(Question(prompt="Paris is in", answer="France"),),
    same_subject=(Question(prompt="Rome speaks", answer="Italian"),),
    related=(Question(prompt="Rome's country is", answer="Peru"),),
    generation_prompts=("Rome was",),
    copied_from=3,
    conflicts_with="other",
    multi_hop=(MultiHopQuestion(phrasings=("Who rules Rome?",), answers=("Inca",)),),
)


def test_every_prompt_is_written_and_nothing_else_changes() -> None:
    found = rewritten(CASE, lambda prompt: f"<{prompt}>")

    assert found.multi_hop[0].phrasings == ("<Who rules Rome?>",)

    def undone(prompt: str) -> str:
        assert prompt.startswith("<")
        assert prompt.endswith(">")
        return prompt[1:-1]

    assert found.request.prompt == "<{} is in>"
    assert found.rewrite_prompt == "<Rome is in>"
    assert found.generation_prompts == ("<Rome was>",)
    assert rewritten(found, undone) == CASE


def test_no_field_of_a_case_is_forgotten() -> None:
    assert CASE.model_fields_set == set(EvaluationCase.model_fields)


def test_a_request_without_its_slot_is_refused() -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        rewritten(CASE, lambda prompt: prompt.replace("{}", "it"))
