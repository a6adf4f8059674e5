import pytest
import torch
from editing_together import Edited, edit_together, saved_base
from pico import FAMILIES


@pytest.fixture(scope="session", params=FAMILIES)
def edited(request, tmp_path_factory) -> Edited:
    """A model of each family, edited by two clients; not to be changed."""
    folder = tmp_path_factory.mktemp(request.param)
    lm = saved_base(request.param, folder / "base", torch.float32)
    return Edited(lm, *edit_together(lm, folder), folder / "base")


@pytest.fixture(scope="session")
def edited_gpt2(tmp_path_factory) -> Edited:
    folder = tmp_path_factory.mktemp("one")
    lm = saved_base("gpt2", folder / "base", torch.float32)
    return Edited(lm, *edit_together(lm, folder), folder / "base")
