import json

import pytest
from huggingface_hub import ModelCard

from flwr_collabedit.export.edit_folder import EditCard
from flwr_collabedit.export.model_card import model_card
from flwr_collabedit.export.written import Form, WrittenLayer

CARD = EditCard(
    model="openai-community/gpt2-xl",
    revision="15ea56d",
    fingerprint="f00d" * 16,
    layers=(13, 14),
    editor=json.dumps({"editor": "memit", "second_moment_weight": 20000.0}),
    method="CollabEdit",
    num_edits=1234,
    num_clients=8,
    num_rounds=3,
    settings={"dtype": "bfloat16", "sweeps": 2, "odd": "a|b"},
    scores={"before": {"ES": 12.34}, "after": {"Score": 87.65, "ES": 99.0}},
    packages={"torch": "2.13.0"},
)
LAYERS = [
    WrittenLayer("h.13.weight", 0.0123, 17, 3e-8),
    WrittenLayer("h.14.weight", 0.5, 0, 0.0),
]


def card(form=Form.LORA, *, on_hub=True, **changes):
    return model_card(CARD.model_copy(update=changes), form, LAYERS, on_hub=on_hub)


@pytest.mark.parametrize(
    ("form", "library", "relation"),
    [
        (Form.MODEL, "transformers", "finetune"),
        (Form.DELTA, "flwr-collabedit", "adapter"),
        (Form.LORA, "peft", "adapter"),
    ],
)
def test_the_hub_reads_the_front_matter(form, library, relation):
    found = ModelCard(card(form)).data.to_dict()

    assert found["library_name"] == library
    assert found["base_model"] == "openai-community/gpt2-xl"
    assert found["base_model_relation"] == relation
    assert found["tags"] == ["knowledge-editing", "flwr-collabedit"]


@pytest.mark.parametrize(
    "line",
    [
        "1,234 facts of 8 parties, in 3 rounds and without showing each other theirs,",
        "written into 2 of its weight matrices by CollabEdit",
        "| Revision | 15ea56d |",
        f"| Fingerprint | `{'f00d' * 16}` |",
        "| Layers | 13, 14 |",
        "| `h.13.weight` | 1.23% | 17 | 3.0e-08 |",
        "| `h.14.weight` | 50.00% | 0 | 0.0e+00 |",
        "| method | Score | ES |",
        "| before | \u2013 | 12.3 |",
        "| after | 87.7 | 99.0 |",
        "| `second_moment_weight` | `20000.0` |",
        "| `sweeps` | `2` |",
        '| `odd` | `"a\\|b"` |',
        '| `torch` | `"2.13.0"` |',
        '("openai-community/gpt2-xl", revision="15ea56d", dtype="bfloat16")',
        "as confidential as the facts",
    ],
)
def test_what_is_known_of_the_edit_is_told(line):
    assert line in card()


def test_one_partys_edit_is_called_so():
    found = card(num_clients=1, num_rounds=1, num_edits=1, scores={}, packages={})

    assert "with 1 fact of one party written" in found
    assert "None were measured." in found
    assert "None were noted." in found


def test_a_base_model_of_this_machine_is_told_by_its_name_alone():
    found = card(on_hub=False, model="/home/ann/secret/llama")

    assert "base_model" not in ModelCard(found).data.to_dict()
    assert "# llama, edited" in found
    assert "ann" not in found.replace("another", "")


def test_the_loading_lines_are_python():
    for form in Form:
        _, code, _ = card(form).replace("```python", "```").split("```", 2)
        compile(code, form, "exec")
