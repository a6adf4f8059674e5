"""What the tests here share: six facts, four clients and a grid of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context
from torch import Tensor

from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.models.language_model import LanguageModel
from simulations.in_process import InProcessGrid

CONTEXTS = ContextTemplates((("{}",), ("Therefore. {}", "I know. {}")))
MEMIT = MemitConfig(
    layers=(0, 1),
    num_gradient_steps=6,
    second_moment_weight=20.0,
    second_moment_samples=8,
    clamp_norm_factor=4.0,
)
FACTS = [
    ("The capital of {} is", "France", "Paris", "Rome"),
    ("The capital of {} is", "Germany", "Berlin", "London"),
    ("{} speaks", "Danielle Darrieux", "French", "German"),
    ("The continent of {} is", "Norway", "Europe", "Asia"),
    ("{} plays", "LeBron James", "basketball", "sport"),
    ("{} was founded in", "Apple Inc", "California", "Hamburg"),
]
CASES = [
    EvaluationCase(
        request=EditRequest(case_id=i, prompt=p, subject=s, target_new=new),
        target_true=true,
        paraphrase_prompts=(f"You know that {p.format(s)}",),
        neighborhood=(Question(prompt=p.format("Japan"), answer=true),),
    )
    for i, (p, s, true, new) in enumerate(FACTS)
]
# Four clients: unequal, one without edits; two rounds.
ROUNDS = [
    [CASES[:2], CASES[2:3]],
    [[], []],
    [CASES[3:4], CASES[4:5]],
    [[], CASES[5:6]],
]

# What every server is told, but for what its test is about.
SERVER: dict[str, Any] = {
    "hyperparameters": MEMIT.to_json(),
    "contexts": CONTEXTS.to_json(),
    "min_available_nodes": len(ROUNDS),
    "exchange_timeout_s": 60,
}
IN_ORDER = tuple(range(len(ROUNDS)))


def second_moments(lm: LanguageModel) -> dict[str, Tensor]:
    texts = [f"{p.format(s)} {t}. You know that." for p, s, t, _ in FACTS * 2]
    return estimate_second_moments(
        lm, MEMIT.layers, texts, num_samples=8, corpus_name="facts"
    )


def make_grid(
    lm: LanguageModel,
    folder: Path,
    moments: dict[str, Tensor] | None = None,
    *,
    order: tuple[int, ...] = IN_ORDER,
    rename: Callable[[str], str] = str,
    rounds: Sequence[Sequence[Sequence[EvaluationCase]]] = ROUNDS,
    **options: Any,
) -> InProcessGrid:
    """Return a grid whose node of index ``i`` is client ``order[i]``.

    Clients that solve by themselves need ``moments``; ``options`` are the client's.
    """

    def client_fn(context: Context) -> EditingClient:
        index = order[int(context.node_config["partition-id"])]
        return EditingClient(
            lm,
            rounds[index],
            name=rename(f"client-{index}"),
            state_folder=folder / str(index),
            second_moments=None if moments is None else lambda _: moments,
            **options,
        )

    return InProcessGrid(make_client_app(client_fn), len(order))
