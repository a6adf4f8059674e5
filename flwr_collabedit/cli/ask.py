"""``collabedit ask``: what the base model and the edited one answer."""

from typing import Annotated, Any

import typer

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import Terminal, terminal


def ask(
    edit: options.Edit,
    prompts: Annotated[
        list[str],
        typer.Argument(help="Texts for the models to continue.", show_default=False),
    ],
    answer: Annotated[
        list[str] | None,
        typer.Option(help="An answer whose probability to tell; may be repeated."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="An answer ends there at the latest.", min=1)
    ] = 12,
    top: Annotated[int, typer.Option(help="First tokens to name.", min=1)] = 3,
    dtype: options.EditDtype = "",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Compare the answers of the base model and the edited one.

    Each answer is what the model writes greedily up to the end of the sentence,
    with the probability of all its tokens.

        collabedit ask runs/mine "The capital of France is" --answer Paris
    """
    with terminal(as_json) as told:
        from flwr_collabedit.cli.inputs import open_edit
        from flwr_collabedit.models.chat import chat_prompt

        lm, saved = open_edit(told, edit, dtype=dtype, device=device)
        chat = saved.card.chat_template
        texts = [chat_prompt(lm.tokenizer, p) if chat else p for p in prompts]
        asked = (texts, answer or [], max_tokens, top)
        base = _answers(lm, *asked)
        with saved.applied(lm):
            edited = _answers(lm, *asked)
        _show(told, prompts, base, edited)


def _answers(
    lm: Any, prompts: list[str], targets: list[str], max_tokens: int, top: int
) -> list[dict[str, Any]]:
    from flwr_collabedit.evaluation.answers import answer, target_probabilities

    found = []
    for prompt in prompts:
        one = answer(lm, prompt, max_tokens=max_tokens, top=top)
        found.append(
            {
                "answer": one.text,
                "probability": one.probability,
                "next_tokens": dict(one.next_tokens),
                "asked": target_probabilities(lm, prompt, targets),
            }
        )
    return found


def _show(
    told: Terminal,
    prompts: list[str],
    base: list[dict[str, Any]],
    edited: list[dict[str, Any]],
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "answer", "probability", "first token"):
        table.add_column(name, justify="right" if name == "probability" else "left")
    for prompt, before, after in zip(prompts, base, edited, strict=True):
        table.add_row(Text(prompt, style="bold"))
        for name, one in (("base", before), ("edited", after)):
            first = ", ".join(
                f"{t} {_percent(p)}" for t, p in one["next_tokens"].items()
            )
            table.add_row(
                Text(f"  {name}"),
                Text(one["answer"]),
                _percent(one["probability"]),
                Text(first, style="dim"),
            )
        for target in before["asked"]:
            shift = [_percent(one["asked"][target]) for one in (before, after)]
            table.add_row("", Text(target), " → ".join(shift))
    value = {
        "prompts": [
            {"prompt": prompt, "base": before, "edited": after}
            for prompt, before, after in zip(prompts, base, edited, strict=True)
        ]
    }
    told.result(value, table)


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
