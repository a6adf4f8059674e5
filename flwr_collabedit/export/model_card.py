"""The README of an exported edit: what was changed and how, never which facts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from flwr_collabedit.evaluation.report import (
    SCORE_COLUMNS,
    SCORE_LEGEND,
    Row,
    render_markdown,
)
from flwr_collabedit.export.edit_folder import DELTA_FILE, EditCard
from flwr_collabedit.export.written import Form, WrittenLayer

_LIBRARY = {
    Form.MODEL: "transformers",
    Form.DELTA: "flwr-collabedit",
    Form.LORA: "peft",
}
_IS = {
    Form.MODEL: "the whole edited model",
    Form.DELTA: f"the change of the weights alone (`{DELTA_FILE}`, float64)",
    Form.LORA: "the change of the weights as a LoRA adapter for the base model",
}
_LOAD = {
    Form.MODEL: """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
""",
    Form.DELTA: """\
from pathlib import Path

from flwr_collabedit.export.edit_folder import check_base, load_edit
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas

deltas, card = load_edit(Path("THIS_FOLDER"))
lm = load_language_model({base}, dtype=card.dtype)
check_base(lm, card)
with applied_deltas(lm, deltas):
    ...  # lm.model is the edited model here
""",
    Form.LORA: """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base}, dtype={dtype})
model = PeftModel.from_pretrained(base, "THIS_FOLDER")
""",
}
_LIMITS = """\
- An edit changes the answers to a fact's prompt and to paraphrases of it. What \
follows from the fact is not changed with it, and near-by facts may change too: ask \
about both before relying on it.
- The scores are those of the questions that they were measured on.
- The changed weights hold the facts. Whoever has the base model too can find out \
where the two answer differently: treat this folder as confidential as the facts are.
- The base model's licence and its own limits go on holding.
"""


def model_card(
    card: EditCard, form: Form, layers: Sequence[WrittenLayer], *, on_hub: bool
) -> str:
    """Return the model card, with the front matter that the Hugging Face hub reads.

    It is made of counts, settings and scores: ``card`` holds no fact.

    Parameters
    ----------
    card : EditCard
        The edit.
    form : Form
        What it was exported as.
    layers : sequence of WrittenLayer
        Of each edited weight.
    on_hub : bool
        Whether ``card.model`` is a hub id; a path's folders are not told.
    """
    base = card.model if on_hub else PurePath(card.model).name
    front = {
        "library_name": _LIBRARY[form],
        **({"base_model": base} if on_hub else {}),
        **({"base_model_relation": _relation(form)} if on_hub else {}),
        **({} if form is Form.DELTA else {"pipeline_tag": "text-generation"}),
        "tags": ["knowledge-editing", "flwr-collabedit"],
    }
    load = _LOAD[form].replace("{base}", _source(card, on_hub))
    load = load.replace("{dtype}", json.dumps(card.dtype))
    parts = [
        "---\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in front.items()) + "---",
        f"# {base}, edited",
        f"`{base}` with {_made_of(card)} written into {len(layers)} of its weight "
        f"matrices by {card.method}. This folder is {_IS[form]}.",
        f"## How to load it\n\n```python\n{load}```",
        "## What was edited\n\n" + _table(("", ""), _what(card, base, on_hub)),
        _table(
            ("weight", "norm of the change", "rank", "error of this export"),
            ((f"`{one.name}`", *_figures(one)) for one in layers),
        ),
        "The norm is relative to the base weight's, the error to the change's.",
        _scores(card.scores),
        "## Editor\n\n" + _pairs(json.loads(card.editor)),
        "## Settings\n\n" + _pairs(card.settings),
        "## Made with\n\n" + _pairs(card.packages),
        "## Limits\n\n" + _LIMITS,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _relation(form: Form) -> str:
    return "finetune" if form is Form.MODEL else "adapter"


def _source(card: EditCard, on_hub: bool) -> str:
    """Return what the loading lines give for the base model."""
    if not on_hub:
        return json.dumps(f"FOLDER_OF_{PurePath(card.model).name}")
    revision = f", revision={json.dumps(card.revision)}" if card.revision else ""
    return json.dumps(card.model) + revision


def _made_of(card: EditCard) -> str:
    """Return how many facts, parties and rounds, in words."""
    facts = _count(card.num_edits, "fact")
    if card.num_clients == 1:
        return f"{facts} of one party"
    parties = _count(card.num_clients, "party", "parties")
    rounds = _count(card.num_rounds, "round")
    return f"{facts} of {parties}, in {rounds} and without showing each other theirs,"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _what(card: EditCard, base: str, on_hub: bool) -> list[tuple[str, str]]:
    return [
        ("Facts", f"{card.num_edits:,}"),
        ("Clients", f"{card.num_clients:,}"),
        ("Rounds", f"{card.num_rounds:,}"),
        ("Method", card.method),
        ("Layers", ", ".join(map(str, card.layers))),
        ("Base model", f"`{base}`"),
        *([("Revision", card.revision or "the hub's default")] if on_hub else []),
        ("Edited in", card.dtype),
        ("Fingerprint", f"`{card.fingerprint}`"),
    ]


def _figures(layer: WrittenLayer) -> tuple[str, str, str]:
    rank = "full" if layer.rank is None else str(layer.rank)
    return f"{layer.relative_norm:.2%}", rank, f"{layer.relative_error:.1e}"


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    rows: list[Row] = [{**row, "method": method} for method, row in scores.items()]
    if not rows:
        return "## Scores\n\nNone were measured."
    columns = [c for c in SCORE_COLUMNS if any(c.key in row for row in rows)]
    return f"{render_markdown('Scores', columns, rows)}\n{SCORE_LEGEND}"


def _pairs(values: Mapping[str, Any]) -> str:
    if not values:
        return "None were noted."
    rows = ((f"`{k}`", f"`{json.dumps(v, default=str)}`") for k, v in values.items())
    return _table(("", ""), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
