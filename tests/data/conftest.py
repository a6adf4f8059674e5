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
