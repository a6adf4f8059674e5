import json

import pytest

from flwr_collabedit.data.texts import load_texts
from flwr_collabedit.errors import ConfigurationError


def test_documents_of_both_kinds_of_file_are_read_without_the_empty_ones(tmp_path):
    (tmp_path / "a.txt").write_text("Rome is old.\n\nParis is in France.\n")
    rows = [{"body": "Rome is old."}, {"body": " "}, {"body": "Paris is in France."}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))

    expected = ["Rome is old.", "Paris is in France."]
    assert list(load_texts(str(tmp_path / "a.txt"))) == expected
    assert list(load_texts(str(tmp_path / "a.jsonl"), field="body")) == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "found none"),
        ("bad.json", "{broken", "Expected text in"),
        ("numbers.jsonl", '{"text": 1}', "found 1"),
        ("nothing.jsonl", '{"text": null}\n{"text": "a"}', "found None"),
        ("other.jsonl", '{"body": "a"}', r"column 'text'.*body"),
        ("folder", None, "Expected text in"),
    ],
)
def test_what_is_no_text_is_told_in_a_sentence(tmp_path, name, content, said):
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match=said):
        list(load_texts(str(path)))
