import re
from pathlib import Path

import torch

from flwr_collabedit.export.export_edit import export_edit
from flwr_collabedit.export.written import Form
from flwr_collabedit.models.weights import applied_deltas

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_pages_lines_apply_a_delta_to_the_last_bit(edited, tmp_path):
    export_edit(edited.lm, edited.deltas, edited.card, tmp_path / "out", Form.DELTA)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    code = code.replace("BASE_MODEL", str(edited.base))
    code = code.replace("EXPORTED", str(tmp_path / "out"))

    found: dict = {}
    exec(code, found)

    assert "flwr_collabedit" not in code
    with applied_deltas(edited.lm, edited.deltas):
        for name, weight in edited.lm.model.state_dict().items():
            assert torch.equal(found["model"].state_dict()[name], weight), name
