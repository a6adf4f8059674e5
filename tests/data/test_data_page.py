"""The records that docs/data.md shows are read as what it says they are."""

import re
from pathlib import Path
from typing import get_args

import pytest

from flwr_collabedit.data.formats import FORMATS, KNOWN_SOURCES
from flwr_collabedit.data.reading import DataSet, read_data_set
from simulations.settings import ExperimentSettings

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def shown(section: str, folder: Path) -> list[DataSet]:
    """Return what each example of a section is read as."""
    (text,) = re.findall(
        rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    found = []
    for kind, example in re.findall(r"```(csv|json)\n(.*?)```", text, re.DOTALL):
        path = folder / f"{len(found)}.{kind}"
        path.write_text(example if kind == "csv" else f"[{example}]")
        found.append(read_data_set(path))
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_the_examples_of_a_format_are_of_it(tmp_path: Path, name: str):
    examples = shown(name, tmp_path)

    assert examples
    assert {data.data_format for data in examples} == {name}
    assert all(data.cases() for data in examples)


def test_the_plain_examples_ask_what_they_say(tmp_path: Path):
    (by_csv,), (by_json,) = (data.cases() for data in shown("plain", tmp_path))

    assert by_csv.request == by_json.request
    assert by_csv.paraphrase_prompts == (
        "You find the Eiffel Tower in",
        "The home of the Eiffel Tower is",
    )
    assert [question.answer for question in by_json.neighborhood] == ["Paris", "Rome"]


def test_every_short_name_is_on_the_page():
    assert all(f"`{name}`" in PAGE.read_text() for name in KNOWN_SOURCES)


def test_simulations_know_every_format():
    field = ExperimentSettings.model_fields["data_format"]

    assert set(get_args(field.annotation)) == set(FORMATS)
