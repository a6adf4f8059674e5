"""What ``collabedit covariance`` does, from the text to the files and their table."""

import time
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flwr_collabedit.cli.inputs import EMBEDDED
from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.fact_world import embedded_corpus
from flwr_collabedit.data.texts import load_texts
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.covariance import estimate
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.kinds import target_config
from flwr_collabedit.editors.published_moments import (
    import_published,
    published_files,
)
from flwr_collabedit.editors.second_moment_file import (
    SecondMomentCard,
    file_sha256,
    read_card,
)
from flwr_collabedit.editors.second_moment_folder import default_folder
from flwr_collabedit.editors.second_moment_source import second_moment_sources
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class MomentPlan:
    """The options of ``collabedit covariance`` but those that load the model."""

    corpus: str = ""
    field: str = "text"
    layers: str = ""
    hyperparameters: str = ""
    small: float = 0.0
    samples: int = 0
    shrink: bool | None = None
    max_length: int | None = None
    batch_size: int = 16
    import_npz: Path | None = None
    out: Path | None = None

    def check(self, model: str) -> None:
        """Raise for options that contradict each other, before the model is loaded.

        Raises
        ------
        ConfigurationError
            If so, or no text is given.
        """
        if self.small and self.samples:
            raise ConfigurationError(
                f"Expected either --small or --samples, found {self.small:g} and "
                f"{self.samples}. Give one."
            )
        if self.import_npz and (self.small or self.samples or self.shrink):
            raise ConfigurationError(
                "Expected --import-npz without --small, --samples and --shrink, found "
                "both: a published file is taken as it is. Leave them out."
            )
        if not (self.corpus or self.import_npz or model == EMBEDDED):
            raise ConfigurationError(
                f"Expected text to read for {model!r}, found none. Give --corpus, such "
                "as --corpus wikimedia/wikipedia:20231101.en, or --import-npz."
            )

    @property
    def given_layers(self) -> tuple[int, ...]:
        """The layers that were given; none where the hyperparameters decide.

        Raises
        ------
        ConfigurationError
            If they are no numbers.
        """
        try:
            return tuple(int(part) for part in self.layers.split(",") if part.strip())
        except ValueError as error:
            raise ConfigurationError(
                f"Expected layers such as 13,14,15, found {self.layers!r}."
            ) from error


@dataclass(frozen=True)
class MadeFile:
    """A file, what it holds, and how long it took; no seconds if it was there."""

    path: Path
    card: SecondMomentCard
    seconds: float | None


def estimate_files(
    told: Terminal, lm: LanguageModel, plan: MomentPlan, revision: str
) -> list[MadeFile]:
    """Estimate what the folder does not have; return the files by layer."""
    given = plan.given_layers
    memit = (
        MemitConfig(layers=given)
        if given and not plan.hyperparameters
        else target_config(hyperparameters_for(lm, plan.hyperparameters))
    )
    corpus = plan.corpus or EMBEDDED
    texts = (
        embedded_corpus()
        if corpus == EMBEDDED
        else load_texts(corpus, field=plan.field)
    )
    sources = second_moment_sources(
        lm,
        given or memit.layers,
        corpus_name=_corpus_name(corpus),
        num_samples=plan.samples or (0 if plan.small else memit.second_moment_samples),
        multiple=plan.small,
        shrink=plan.shrink,
        max_length=plan.max_length or memit.second_moment_max_length,
        dtype=memit.second_moment_dtype,
        revision=revision,
    )
    folder = plan.out or default_folder()
    began = time.perf_counter()
    try:
        with told.progress("tokens" if plan.small else "documents") as update:
            found = estimate(
                lm,
                sources,
                texts,
                folder=folder,
                rows_per_batch=plan.batch_size,
                progress=update,
            )
    except KeyboardInterrupt:
        told.note("The same command goes on where this one stopped.")
        raise
    seconds = time.perf_counter() - began
    return [
        MadeFile(
            folder / one.card.source.file_name,
            one.card,
            None if one.was_there else seconds,
        )
        for one in found.values()
    ]


def import_files(
    told: Terminal, lm: LanguageModel, plan: MomentPlan, npz: Path
) -> list[MadeFile]:
    """Import published files; return ours by layer."""
    found = published_files(lm, npz, plan.given_layers)
    folder = plan.out or default_folder()
    made = []
    with told.progress("files", len(found)) as update:
        for count, (layer, path) in enumerate(found.items(), start=1):
            began = time.perf_counter()
            ours = import_published(lm, layer, path, folder, corpus=plan.corpus)
            seconds = time.perf_counter() - began
            made.append(MadeFile(ours, read_card(ours), seconds))
            update(count)
    told.warn(
        "Published files do not say which weights they belong to; their names and "
        f"shapes fit {lm.name!r}, and that is all that can be checked."
    )
    return made


def show_files(told: Terminal, made: list[MadeFile]) -> None:
    """Print the files as a table, and as lines that ``sha256sum -c`` takes."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = ("layer", "d_key", "documents", "tokens", "x d_key", "shrinkage", "seconds")
    for name in names:
        table.add_column(name, justify="right")
    rows, sums = [], []
    for one in made:
        card, source = one.card, one.card.source
        table.add_row(
            str(source.layer),
            f"{source.d_key:,}",
            f"{card.num_documents:,}",
            f"{card.num_tokens:,}",
            f"{card.num_tokens / source.d_key:,.0f}",
            f"{card.shrinkage:.2g}",
            "was there" if one.seconds is None else f"{one.seconds:.1f}",
        )
        digest = file_sha256(one.path)
        sums.append(f"{digest}  {one.path}")
        rows.append(
            {
                "layer": source.layer,
                "weight": source.weight,
                "d_key": source.d_key,
                "documents": card.num_documents,
                "tokens": card.num_tokens,
                "shrinkage": card.shrinkage,
                "seconds": one.seconds,
                "file": str(one.path),
                "sha256": digest,
            }
        )
    told.result({"second_moments": rows}, table, Text("\n".join(sums)))


def _corpus_name(corpus: str) -> str:
    """Return a name that differs where the text does; a file's holds its SHA-256."""
    path = Path(corpus)
    if not path.is_file():
        return corpus
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return f"{path.name}@{digest[:12]}"
