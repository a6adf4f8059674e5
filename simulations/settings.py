"""Every setting of a simulation, checked once: unknown names and values are refused.

The names in ``[tool.flwr.app.config]`` and in ``simulations/configs/*.toml`` are these
fields in kebab case. Flower carries scalars only, so a list is comma-separated text.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from flwr.app import Context
from pydantic import ConfigDict, Field, ValidationError, field_validator

from flwr_collabedit.editor_names import EditorName
from flwr_collabedit.errors import ConfigurationError, nearest
from simulations.round_settings import RoundSettings
from simulations.setting_checks import NODES, check_combination, kebab

Count = Annotated[int, Field(ge=1)]
Rounds = Annotated[str, Field(pattern=r"^[1-9]\d*(, ?[1-9]\d*)+$")]


class ExperimentSettings(RoundSettings):
    """The settings of one simulation, as the run configuration gives them.

    Those of `simulations.round_settings.RoundSettings`, too.

    Attributes
    ----------
    output_folder : str
        Absolute path of the run folder, empty for `from_context`'s. A Flower daemon
        has a working directory of its own: a relative path would end up elsewhere.
    model, revision : str
        ``embedded``, a Hugging Face id or a path; commit, tag or branch of a hub model,
        empty for its default.
    dtype, device
        float32, float64, bfloat16 or float16; what
        `flwr_collabedit.models.loading.load_language_model` takes.
    num_clients, num_rounds
        Clients of the federation; rounds over which each spreads its edits.
    num_edits : int
        Edits in all; 0 takes every case of the source.
    data, data_format, zsre_target, subjects
        ``embedded`` or a file or hub id and its layout; ``zsre_target`` is read for
        zsRE only, ``subjects`` for the embedded world only (``held-out`` ones are in no
        network's training facts). ``nodes``: a deployment,
        in which every party's SuperNode has facts of its own and the server none.
    chat_template : bool
        Put every prompt into the chat template of an instruct model's tokenizer.
    partition, dirichlet_alpha, sentence_model
        How cases are split over clients; the second is read by ``dirichlet`` only, the
        third by ``by-subject-cluster`` only: a hub id or path, empty for TF-IDF.
    shared_fraction : float
        Copies of other clients' cases that a client gets, for each case of its own;
        on top of ``num_edits``.
    editor : str
        One of `flwr_collabedit.editor_names.EditorName`; not every strategy can merge
        the edits of each.
    hypernetwork : str
        Absolute path of the trained network that MALMEN and MEND edit with; config and
        sweep files may have one that is relative to the working directory.
    hyperparameters : str
        Name of a published set, or absolute path of a JSON file; empty for what is
        published for the model, see `flwr_collabedit.editors.hyperparameters`.
    editor_options : str
        What replaces or extends the hyperparameters, under our names, as the inside of
        a TOML table: ``consistent_keys = true, layers = [1]``.
    second_moment_weight : float
        Replaces the file's where it is not 0.
    second_moment_texts, second_moment_samples
        ``embedded``, a text or JSON file or a hub id; documents to read, 0 for as many
        as the hyperparameters say.
    cache_folder : str
        Absolute path for second moments and clients' targets, which runs may share;
        empty for the run folder.
    context_starters : str
        First words of the generated context templates, comma-separated; chats have
        none.
    strategy : str
        How clients' edits are merged; see `flwr_collabedit.strategies`.
    layer_schedule, residual_split, wire_dtype, min_replies, fraction_train
        See `flwr_collabedit.strategies.CollabEditStrategy`; an empty schedule or split
        is the strategy's and the editor's own, 0 replies stands for all. ``local`` and
        ``frozen`` are the schedules of the strategies that merge deltas.
    sweeps, sweep_tolerance, form
        Of CollabEdit.
    secure_limbs : int
        CollabEdit's sums by secure aggregation, with so many integers a number; 0 for
        sums in clear. With form ``dense`` only.
    merge_scale, ties_density
        Factor of task arithmetic and TIES, 0 for the method's own; share of the entries
        that TIES keeps.
    alpha, alpha_percentile, similarity, selection, targets_on, mkv_slots, max_mkvs
        Of FedEdit, see `flwr_collabedit.strategies.FedEditStrategy`; a percentile of 0
        takes ``alpha`` itself, 0 vectors is no bound on the server's store.
    evaluate_every, evaluate_before
        Rounds from one scoring to the next, or comma-separated rounds to score, two or
        more; the last round is always scored. Whether the unedited model is scored too:
        runs that differ in their strategy only need that once.
    generation_tokens, reference_texts
        New tokens of every free text about the edited subjects, 0 for no such text;
        ``embedded`` or a file of what it is held against, see
        `flwr_collabedit.data.reference_texts`, empty for nothing.
    pooled_reference : bool
        Whether one party holding all edits edits too, for comparison (GLOBAL-EDIT).
    threads_per_client : int
        Torch threads of a client's process.
    seed : int
        Of the requests drawn, their split, the context templates and the clients asked.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=kebab, populate_by_name=True
    )

    output_folder: str = ""
    model: str = "embedded"
    revision: str = ""
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    num_clients: Count = 8
    num_rounds: Count = 2
    num_edits: Annotated[int, Field(ge=0)] = 200
    data: str = "embedded"
    data_format: Literal[
        "counterfact", "easy", "easyedit", "knowedit", "mquake", "plain", "zsre"
    ] = "counterfact"
    zsre_target: Literal["answers", "alt"] = "answers"
    subjects: Literal["real", "invented", "all", "held-out"] = "real"
    chat_template: bool = False
    partition: Literal["iid", "by-relation", "by-subject-cluster", "dirichlet"] = "iid"
    dirichlet_alpha: Annotated[float, Field(gt=0)] = 0.5
    sentence_model: str = ""
    shared_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    editor: EditorName = "memit"
    hypernetwork: str = ""
    hyperparameters: str = ""
    editor_options: str = ""
    second_moment_weight: Annotated[float, Field(ge=0)] = 0.0
    second_moment_texts: str = "embedded"
    second_moment_samples: Annotated[int, Field(ge=0)] = 0
    cache_folder: str = ""
    context_starters: str = "The,Therefore,Because,I,You"
    strategy: Literal[
        "collabedit",
        "edit-avg",
        "simple-average",
        "task-arithmetic",
        "ties",
        "fed-edit",
        "local-only",
    ] = "collabedit"
    layer_schedule: Literal["", "synchronous", "frozen", "local"] = ""
    residual_split: Literal["", "remaining", "uniform", "square-root"] = ""
    sweeps: Count = 1
    sweep_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    merge_scale: Annotated[float, Field(ge=0)] = 0.0
    ties_density: Annotated[float, Field(gt=0, le=1)] = 0.2
    alpha: Annotated[float, Field(ge=-1, le=1)] = 0.4
    alpha_percentile: Annotated[float, Field(ge=0, le=100)] = 0.0
    similarity: Literal["z", "delta"] = "z"
    selection: Literal["server", "client"] = "server"
    targets_on: Literal["base", "edited"] = "base"
    mkv_slots: Count = 1
    max_mkvs: Annotated[int, Field(ge=0)] = 0
    form: Literal["factors", "dense"] = "factors"
    secure_limbs: Annotated[int, Field(ge=0)] = 0
    wire_dtype: Literal["float32", "float64"] = "float32"
    min_replies: Annotated[int, Field(ge=0)] = 0
    fraction_train: Annotated[float, Field(gt=0, le=1)] = 1.0
    evaluate_every: Count | Rounds = 1
    evaluate_before: bool = True
    generation_tokens: Annotated[int, Field(ge=0)] = 0
    reference_texts: str = ""
    pooled_reference: bool = True
    threads_per_client: Count = 1
    seed: int = 0

    @field_validator("output_folder", "cache_folder", "conflict_key", "hypernetwork")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if path and not Path(path).is_absolute():
            raise ValueError("expected an absolute path")
        return path

    @field_validator("hyperparameters")
    @classmethod
    def _set_or_file(cls, value: str) -> str:
        is_file = Path(value).name != value or value.endswith(".json")
        if value and is_file and not Path(value).is_absolute():
            raise ValueError("expected a set's name or an absolute path")
        return value

    @field_validator("editor_options")
    @classmethod
    def _table(cls, text: str) -> str:
        try:
            tomllib.loads(f"options = {{{text}}}")
        except tomllib.TOMLDecodeError as error:
            raise ValueError(
                "expected the inside of a TOML table, such as 'consistent_keys = "
                f"true': {error}"
            ) from None
        return text

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> Self:
        """Return the checked settings.

        Raises
        ------
        ConfigurationError
            Naming every setting that is unknown or has a wrong value, or those that do
            not go together.
        """
        known = {kebab(name) for name in cls.model_fields}
        unknown = [key for key in run_config if key not in known]
        if unknown:
            raise ConfigurationError(
                f"Unknown setting {unknown[0]!r} in the run configuration. "
                f"{nearest(unknown[0], known)}"
            )
        try:
            settings = cls.model_validate(dict(run_config))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc']))} = {item['input']!r}: {item['msg']}"
                for item in error.errors()
            )
            raise ConfigurationError(
                f"Wrong settings in the run configuration: {problems}. See "
                "simulations/README.md for what each one takes."
            ) from None
        check_combination(settings)
        return settings

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """Return the settings of a run; without an output folder, one in the home.

        Server and clients agree on ``~/collabedit-runs/run-<run id>``.
        """
        settings = cls.from_run_config(context.run_config)
        if settings.output_folder:
            return settings
        folder = Path.home() / "collabedit-runs" / f"run-{context.run_id}"
        return settings.model_copy(update={"output_folder": str(folder)})

    def to_run_config(self) -> dict[str, str | int | float | bool]:
        """Return the settings under the names that a run configuration uses."""
        return self.model_dump(by_alias=True)

    @property
    def scored_rounds(self) -> int | tuple[int, ...]:
        """Rounds from one scoring to the next, or just those that are scored."""
        every = self.evaluate_every
        return every if isinstance(every, int) else tuple(map(int, every.split(",")))

    @property
    def hyperparameter_overrides(self) -> dict[str, Any]:
        """What ``editor_options`` says, by name."""
        table = tomllib.loads(f"options = {{{self.editor_options}}}")
        overrides: dict[str, Any] = table["options"]
        return overrides

    @property
    def is_deployment(self) -> bool:
        """Whether every party has facts of its own and the server has none."""
        return self.data == NODES

    @property
    def folder(self) -> Path:
        """The run folder."""
        if not self.output_folder:
            raise ConfigurationError(
                "No output-folder. Start the simulation with `collabedit "
                "simulate CONFIG`, or add --run-config "
                "'output-folder=\"/absolute/path\"' to `flwr run`."
            )
        return Path(self.output_folder)
