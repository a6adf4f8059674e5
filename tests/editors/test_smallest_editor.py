"""The example of docs/adding_an_editor.md does what the page prints, and no harm."""

import re
from pathlib import Path

import torch

from examples.smallest_editor import GradientStepEditor, fact, main
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.models.loading import load_language_model

PAGE = Path(__file__).parents[2] / "docs" / "adding_an_editor.md"


def test_the_page_shows_what_it_prints(capsys):
    main()

    printed = capsys.readouterr().out
    shares = [float(one) for one in re.findall(r"([\d.]+)%", printed)]
    shown = re.search(r"(France: .*%)\n.*(France: .*%)", PAGE.read_text())
    assert shown is not None
    expected = [
        float(one) for one in re.findall(r"([\d.]+)%", " ".join(shown.groups()))
    ]
    assert len(shares) == len(expected) == 4
    assert max(abs(a - b) for a, b in zip(shares, expected, strict=True)) < 1.0


def test_it_steps_against_the_gradient_from_where_it_starts():
    lm = load_language_model("embedded")
    before = {name: one.clone() for name, one in lm.model.state_dict().items()}
    editor = GradientStepEditor(lm, layers=(1,), step_size=0.5)
    requests = [fact("France", "Rome")]
    name = lm.weight_name(1)
    keys, gradients = label_gradients(lm, [name], requests)[name]

    first = editor.edit(requests)
    second = editor.edit(requests, start=first)

    torch.testing.assert_close(first.deltas[name], -0.5 * gradients @ keys.T)
    assert (second.deltas[name] - first.deltas[name]).norm() > 0.01
    after = lm.model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())
