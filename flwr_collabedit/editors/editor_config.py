"""What the configurations of all editors share: checking, reading and writing them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flwr_collabedit.editor_names import EditorName
from flwr_collabedit.errors import ConfigurationError, nearest

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class EditorConfig(BaseModel):
    """Hyperparameters of an editor, under our names.

    A subclass names its editor in the default of ``editor``, and maps the published
    names to its own: the one place where the two vocabularies meet.

    Attributes
    ----------
    editor : str
        Tells a configuration's JSON from another editor's, see
        `flwr_collabedit.editors.kinds.read_config`.
    layers : tuple of int
        Edited layers, ascending, counted from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    published_names: ClassVar[Mapping[str, str]] = {}
    ignored_keys: ClassVar[frozenset[str]] = frozenset()

    editor: EditorName
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if list(layers) != sorted(set(layers)):
            raise ValueError(f"expected ascending layers, each once, found {layers}")
        return layers

    @classmethod
    def from_published(
        cls,
        source: str | Path | Mapping[str, Any],
        *,
        where: str = "",
        **overrides: Any,
    ) -> Self:
        """Return the configuration in one of the editor's published JSON files.

        Parameters
        ----------
        source : path or mapping
            The file, or its content.
        where : str
            What errors call the source; its path, or ``the mapping``, if empty.
        **overrides
            Values under our names that replace or extend the file's.

        Raises
        ------
        ConfigurationError
            For a key that the editor does not have, an editing position other than the
            subject's last token, or a value out of range.
        """
        if not where:
            where = "the mapping" if isinstance(source, Mapping) else f"'{source}'"
        published: Mapping[str, Any] = (
            source
            if isinstance(source, Mapping)
            else json.loads(Path(source).read_text(encoding="utf-8"))
        )
        known = {*cls.published_names, *cls.ignored_keys, "fact_token"}
        name = str(cls.model_fields["editor"].default).upper()
        for key in published:
            if key not in known:
                raise ConfigurationError(
                    f"Unknown {name} hyperparameter {key!r} in {where}. "
                    f"{nearest(key, known)} Remove it or correct its name."
                )
        if (position := published.get("fact_token", "subject_last")) != "subject_last":
            raise ConfigurationError(
                f"Expected fact_token 'subject_last' in {where}, found {position!r}. "
                "Only the subject's last token can be edited."
            )
        values = {
            ours: published[theirs]
            for theirs, ours in cls.published_names.items()
            if theirs in published
        }
        return cls.checked({**values, **overrides}, where)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the configuration that :meth:`to_json` wrote."""
        return cls.checked(json.loads(text), "the JSON text")

    def to_json(self) -> str:
        """Return the configuration as one line of JSON under our names."""
        return self.model_dump_json()

    @classmethod
    def checked(cls, values: Mapping[str, Any], where: str) -> Self:
        """Return the configuration with ``values`` under our names.

        Raises
        ------
        ConfigurationError
            Naming every one that is unknown or out of range, and ``where`` it stood.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}, "
                f"found {item['input']!r}"
                for item in error.errors()
            )
            raise ConfigurationError(
                f"Hyperparameters in {where} are wrong: {found}. "
                f"Known names: {', '.join(cls.model_fields)}."
            ) from error
