"""The second moments in a folder that fit a model.

Estimating them is another step than editing (`collabedit covariance`), so an edit looks
for what is there: by fingerprint, whatever a file is called and wherever the model was
loaded from.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from flwr_collabedit.editors.second_moment_file import (
    SecondMomentCard,
    load_second_moment,
    read_card,
)
from flwr_collabedit.errors import NoSecondMomentError, SecondMomentError, shorten
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel

Note = Callable[[str], None]
Cards = dict[Path, SecondMomentCard]


def default_folder() -> Path:
    """Return where `collabedit covariance` writes and edits look.

    ``flwr-collabedit/second_moments`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    cache = Path(root) if root else Path.home() / ".cache"
    return cache / "flwr-collabedit" / "second_moments"


def find_second_moments(
    lm: LanguageModel,
    layers: Sequence[int],
    folder: Path | None = None,
    *,
    note: Note | None = None,
) -> dict[str, Tensor]:
    """Return the second moments of some layers that a folder has for this model.

    Where it has several of a layer, the one with the most tokens is taken: a full one
    before a small one.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    layers : sequence of int
        The edited layers.
    folder : Path or None
        Where to look; ``None`` is `default_folder`.
    note : callable or None
        Told in a sentence which file was taken for a layer, or passed over.

    Returns
    -------
    dict of str to Tensor
        Under each weight's name ``(d_key, d_key)``, float64, on the model's device.

    Raises
    ------
    NoSecondMomentError
        If a layer has none, or only those of other weights.
    SecondMomentError
        If a file of this model is damaged.
    """
    lm.check_layers(layers)
    folder, note = folder or default_folder(), note or _silent
    cards = _cards(folder, note)
    chosen = {layer: _best(lm, layer, cards) for layer in layers}
    if lacking := [layer for layer, path in chosen.items() if path is None]:
        raise _lacking(lm, lacking, folder, cards)
    moments = {}
    for path in filter(None, chosen.values()):
        matrix, card = load_second_moment(path, cards[path].source)
        moments[card.source.weight] = matrix.to(lm.device)
        note(_described(lm, path, card))
    return moments


def _silent(_: str) -> None:
    pass


def _cards(folder: Path, note: Note) -> Cards:
    """Return what is in the folder; what is no second moment is not ours to judge."""
    cards = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            cards[path] = read_card(path)
        except SecondMomentError as error:
            note(f"Passed over: {error}")
    return cards


def _best(lm: LanguageModel, layer: int, cards: Cards) -> Path | None:
    """Return the layer's file with the most tokens; of equal ones the plainer."""
    mark = fingerprint(lm, [layer])
    fitting = [path for path, card in cards.items() if card.source.fingerprint == mark]
    return max(
        fitting,
        key=lambda path: (cards[path].num_tokens, -cards[path].shrinkage, path.name),
        default=None,
    )


def _described(lm: LanguageModel, path: Path, card: SecondMomentCard) -> str:
    kind = "small sample" if card.source.multiple else "sample"
    text = (
        f"Second moment of layer {card.source.layer}: '{path.name}', a {kind} of "
        f"{card.num_tokens:,} tokens of {card.source.corpus!r}"
    )
    if card.shrinkage:
        text += f", shrunk by {card.shrinkage:.2g}"
    if card.source.model != lm.name:
        text += f"; made for the same weight under the name {card.source.model!r}"
    return f"{text}."


def _lacking(
    lm: LanguageModel, layers: list[int], folder: Path, cards: Cards
) -> SecondMomentError:
    """Return the error that says what is there instead and how to make what is not."""
    weights = {lm.weight_name(layer) for layer in layers}
    foreign = {
        f"{card.source.model}@{card.source.revision or 'default revision'}"
        for card in cards.values()
        if card.source.weight in weights
    }
    there = (
        f"only those of {shorten(sorted(foreign))}, with another fingerprint (weights, "
        "tokenizer, configuration or --dtype)"
        if foreign
        else "none"
    )
    corpus = "embedded" if lm.name == "embedded" else "wikimedia/wikipedia:20231101.en"
    return NoSecondMomentError(
        f"Expected second moments of layers {', '.join(map(str, layers))} of "
        f"{lm.name!r} in '{folder}', found {there}. Load the very model that they were "
        "made for, ask whoever shares this edit for their files, or make them: "
        f"collabedit covariance {lm.name} --layers {','.join(map(str, layers))} "
        f"--corpus {corpus} --small 10"
    )
