"""The attacker's keys are those that a client would upload."""

import pytest
import torch

from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.facts import FactWorld
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.privacy.subject_keys import SubjectKeys

CONTEXTS = ContextTemplates((("{}",), ("Therefore. {}",)))


@pytest.fixture(scope="module")
def lm():
    return load_language_model("embedded")


@pytest.fixture(scope="module")
def world():
    subjects = [*list(default_world().by_subject)[:3], "Germany"]
    facts = default_world().by_subject
    return FactWorld(tuple(fact for name in subjects for fact in facts[name]))


def client_keys(lm, subject, prompts):
    requests = [
        EditRequest(case_id=i, prompt=prompt, subject=subject, target_new="x")
        for i, prompt in enumerate(prompts)
    ]
    return collect_keys(lm, requests, [1], CONTEXTS)[1]


def test_keys_are_those_of_a_client_that_edits_the_subject(lm, world):
    found = SubjectKeys.of_world(lm, world, 1, CONTEXTS, num_wordings=2)

    assert found.subjects == tuple(world.by_subject)
    assert found.keys.shape == (640, 4, 3)
    for number, subject in enumerate(found.subjects):
        facts = world.by_subject[subject]
        templates = [t for fact in facts for t in (*fact.templates, *fact.held_out)]
        whole = client_keys(lm, subject, ["{}", *templates])
        begins = [i for i, t in enumerate(templates, start=1) if t.startswith("{}")]
        for column in (0, *begins):
            gap = (whole[:, column] - found.keys[:, number, 0]).norm()
            assert gap < 1e-4 * whole[:, column].norm()
        others = whole[:, [i for i in range(len(whole.T)) if i not in (0, *begins)]]
        for wording in (1, 2):
            gaps = (others - found.keys[:, number, wording, None]).norm(dim=0)
            assert gaps.min() < 1e-4 * whole[:, 0].norm()
        assert (found.keys[:, number, 1] - found.keys[:, number, 2]).norm() > 1e-2


def test_drawn_keys_are_the_members_and_never_bare(lm, world):
    keys = torch.arange(24.0).reshape(2, 4, 3)
    found = SubjectKeys(("a", "b", "c", "d"), keys)
    generator = torch.Generator().manual_seed(0)

    drawn = found.draw(torch.tensor([[2, 0]] * 50), generator)

    assert drawn.shape == (2, 50, 2)
    assert set(drawn[0, :, 0].tolist()) == set(keys[0, 2, 1:].tolist())
    assert set(drawn[1, :, 1].tolist()) == set(keys[1, 0, 1:].tolist())
    assert torch.equal(found.bare, keys[:, :, :1])


def test_more_wordings_than_there_are_is_an_error(lm, world):
    with pytest.raises(ConfigurationError, match="num_wordings of at most"):
        SubjectKeys.of_world(lm, world, 1, CONTEXTS, num_wordings=99)
