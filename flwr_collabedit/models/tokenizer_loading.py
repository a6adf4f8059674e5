"""A model's tokenizer and number of positions, without its weights."""

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.loading import EMBEDDED_MODEL
from flwr_collabedit.models.tokens import require_fast, require_vocabulary

_NO_LIMIT = 10**6  # transformers writes 10**30 where a tokenizer knows of none


def load_tokenizer(
    name: str, *, revision: str = ""
) -> tuple[PreTrainedTokenizerFast, int | None]:
    """Return a tokenizer, and how many positions its model reads.

    Parameters
    ----------
    name : str
        ``"embedded"``, a folder (of a model, or of a tokenizer alone) or a hub id.
    revision : str
        Of a hub model; its default if empty.

    Returns
    -------
    tokenizer : PreTrainedTokenizerFast
    max_length : int or None
        ``max_position_embeddings`` of the configuration; without one what the tokenizer
        says, ``None`` where that is nothing either.

    Raises
    ------
    ConfigurationError
        If there is no tokenizer of that name, or only a slow one.
    """
    source = str(EMBEDDED_MODEL) if name == "embedded" else name
    try:
        tokenizer = require_fast(
            AutoTokenizer.from_pretrained(source, revision=revision or "main")
        )
    except ConfigurationError:
        raise
    except (OSError, ValueError) as error:  # transformers' two for an unusable source
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"Expected a tokenizer; found {name!r} ({reason}). Use 'embedded', a "
            "folder with a tokenizer.json, or a hub id that is in the local cache or "
            "reachable (HF_HUB_OFFLINE unset)."
        ) from error
    require_vocabulary(tokenizer, name)
    return tokenizer, _positions(source, revision, tokenizer)


def _positions(
    source: str, revision: str, tokenizer: PreTrainedTokenizerFast
) -> int | None:
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main")
    except (OSError, ValueError):  # a folder of a tokenizer alone
        said = tokenizer.model_max_length
        return int(said) if said < _NO_LIMIT else None
    positions = getattr(config, "max_position_embeddings", None)
    return None if positions is None else int(positions)
