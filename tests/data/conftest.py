"""Records with exactly the published schemas, invented here."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def counterfact_record() -> dict[str, Any]:
    return {
        "case_id": 7,
        "pararel_idx": 12,
        "requested_rewrite": {
            "prompt": "The capital of {} is",
            "relation_id": "P36",
            "target_new": {"str": "Lyria", "id": "Q1"},
            "target_true": {"str": "Vandor", "id": "Q2"},
            "subject": "Ostrava Minor",
        },
        "paraphrase_prompts": [
            "It rained. Ostrava Minor is governed from",
            "Ostrava Minor's capital city is",
        ],
        "neighborhood_prompts": ["The capital of Belmar is", "Belmar's capital is"],
        "attribute_prompts": ["The capital of Nerith is"],
        "generation_prompts": ["The parliament of Ostrava Minor sits in"],
    }


@pytest.fixture
def easyedit_record() -> dict[str, Any]:
    return {
        "case_id": 3,
        "prompt": "The capital of Ostrava Minor is",
        "target_new": "Lyria",
        "subject": "Ostrava Minor",
        "ground_truth": "Vandor",
        "rephrase_prompt": "Ostrava Minor is governed from",
        "locality_prompt": "The capital of Nerith is",
        "locality_ground_truth": "Sorun",
    }


@pytest.fixture
def zsre_record() -> dict[str, Any]:
    return {
        "subject": "Ostrava Minor",
        "src": "Which city governs Ostrava Minor?",
        "pred": "Sorun",
        "rephrase": "What is Ostrava Minor's capital?",
        "alt": "Lyria",
        "answers": ["Vandor", "Vandor City"],
        "loc": "nq question: who wrote the long road",
        "loc_ans": "Ada Merrow",
        "cond": "Vandor >> Lyria || Which city governs Ostrava Minor?",
    }


@pytest.fixture
def easy_record() -> dict[str, Any]:
    return {
        "type": "1-3@P366",
        "edit": {
            "relation": {
                "id": "P366",
                "prompt": "{} has use(s), such as",
                "query": "What use does {} have?",
                "label": "has use",
            },
            "subject": {"id": "Q1", "label": "glim"},
            "new_object": {"id": "Q2", "label": "weaving"},
            "object": {"id": "Q3", "label": "rope making"},
        },
        "true_objects": [
            {"id": "Q4", "label": "sail mending"},
            {"id": "Q3", "label": "rope making"},
            {"id": "Q5", "label": "net repair"},
        ],
    }


@pytest.fixture
def conflict_record(easy_record: dict[str, Any]) -> dict[str, Any]:
    edit = easy_record["edit"] | {
        "new_object": "weeving",
        "conflict_object": {"id": "Q-2", "label": "weaving"},
    }
    return easy_record | {"edit": edit}


@pytest.fixture
def published_data() -> Path:
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published records are not on this machine")
    return folder


@pytest.fixture
def mquake_record() -> dict[str, Any]:
    return {
        "case_id": 12,
        "requested_rewrite": [
            {
                "prompt": "{} is a citizen of",
                "relation_id": "P27",
                "target_new": {"str": "Belmar", "id": "Q1"},
                "target_true": {"str": "Nerith", "id": "Q2"},
                "subject": "Ada Merrow",
                "question": "What is the country of citizenship of Ada Merrow?",
            },
            {
                "prompt": "The capital of {} is",
                "relation_id": "P36",
                "target_new": {"str": "Lyria", "id": "Q3"},
                "target_true": {"str": "Vandor", "id": "Q4"},
                "subject": "Belmar",
                "question": "What is the capital of Belmar?",
            },
        ],
        "questions": ["Where is the government of Ada Merrow?", "B?", "C?"],
        "answer": "Sorun",
        "answer_alias": [],
        "new_answer": "Lyria",
        "new_answer_alias": ["Lyria City", "Lyria"],
        "single_hops": [{"question": "?", "cloze": "a", "answer": "b"}],
        "new_single_hops": [],
        "orig": {"triples": [["Q9", "P27", "Q2"]]},
    }


@pytest.fixture
def wiki_recent_record() -> dict[str, Any]:
    """KnowEdit's Wiki_recent: answers are lists of lists of synonyms."""
    return {
        "subject": "Leo Varn",
        "prompt": "The place of death of Leo Varn is",
        "target_new": "Lyria",
        "portability": {
            "Logical_Generalization": [
                {"prompt": "Is Leo Varn alive?", "ground_truth": [["no"], ["dead"]]}
            ],
            "Reasoning": [
                {
                    "prompt": "The country in which Leo Varn died is",
                    "ground_truth": [["Belmar", "Kingdom of Belmar"]],
                }
            ],
            "Subject_Aliasing": [
                {
                    "prompt": "The place of death of L. Varn is",
                    "ground_truth": [["Lyria"]],
                }
            ],
        },
        "locality": {
            "Relation_Specificity": [
                {
                    "prompt": "The father of Leo Varn is",
                    "ground_truth": [["Albert Varn", "A. Varn"]],
                },
                {"prompt": "The mother of Leo Varn is", "ground_truth": [[]]},
                {"prompt": "The capital of Belmar is", "ground_truth": [["Vandor"]]},
            ]
        },
    }


@pytest.fixture
def wikibio_record() -> dict[str, Any]:
    return {
        "text": "This is a Wikipedia passage about leo varn. Leo Varn was a painter.",
        "labels": "He studied in Lyria.",
        "concept": "leo varn",
        "locality": {
            "Relation_Specificity": [
                {"prompt": "leo varn field of work", "ground_truth": ["painting"]}
            ]
        },
    }


@pytest.fixture
def plain_record() -> dict[str, Any]:
    return {
        "subject": "Ostrava Minor",
        "prompt": "The capital of {} is",
        "target_new": "Lyria",
    }


@pytest.fixture
def records(
    plain_record: dict[str, Any],
    counterfact_record: dict[str, Any],
    easyedit_record: dict[str, Any],
    zsre_record: dict[str, Any],
    wiki_recent_record: dict[str, Any],
    mquake_record: dict[str, Any],
    easy_record: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Return one record of every format."""
    return {
        "plain": plain_record,
        "counterfact": counterfact_record,
        "easyedit": easyedit_record,
        "zsre": zsre_record,
        "knowedit": wiki_recent_record,
        "mquake": mquake_record,
        "easy": easy_record,
    }
