"""Texts about what an edit's new answer means, to hold generated text against.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022: texts
    about subjects of whom the new answer is true, in CounterFact's file
    ``attribute_snippets.json``; or a user's own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.fields import Record, read_text
from flwr_collabedit.data.record_source import iterate_records
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import RequestFormatError, shorten

Texts = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ReferenceTexts:
    """Texts by case, and by relation and new target.

    Attributes
    ----------
    by_case : mapping of str to tuple of str
        By ``case_id``, written as text; a case with texts of its own has no others.
    by_target : mapping of (str, str) to tuple of str
        By relation id (empty where the data has none) and target.
    """

    by_case: Mapping[str, Texts]
    by_target: Mapping[tuple[str, str], Texts]

    @classmethod
    def from_file(
        cls, source: str | Path, *, counterfact: str | Path | None = None
    ) -> Self:
        """Return the texts of a ``.json`` (list) or ``.jsonl`` file, or hub data set.

        Parameters
        ----------
        source : str or Path
            Each record has ``texts`` (a list) and says what they are about:
            ``case_id``, or ``target`` and, if the data has relations, ``relation_id``.
            The published snippets, with ``samples[].text`` and ``target_id``, are read
            too.
        counterfact : str or Path or None
            A file in CounterFact's layout, which says what a ``target_id`` is called;
            not read without one.

        Raises
        ------
        RequestFormatError
            If a record has another form, with its number; if there is no text at all.
        """
        names: Mapping[str, str] | None = None
        by_case: dict[str, Texts] = defaultdict(tuple)
        by_target: dict[tuple[str, str], Texts] = defaultdict(tuple)
        for index, record in enumerate(_values(source)):
            where = f"{source}, record {index}"
            texts = _texts(record, where)
            if record.get("case_id") is not None:
                by_case[str(record["case_id"])] += texts
                continue
            if "target" not in record and "target_id" in record and names is None:
                names = _names(counterfact, where)
            relation = str(record.get("relation_id") or "")
            if target := _target(record, names or {}, where):
                by_target[relation, target] += texts
        if not any(map(any, (by_case.values(), by_target.values()))):
            raise RequestFormatError(
                f"{source}: expected at least one reference text, found none."
            )
        return cls(dict(by_case), dict(by_target))

    def of(self, case: EvaluationCase) -> Texts:
        """Return the texts that say what a case's new target means; maybe none."""
        request = case.request
        own = self.by_case.get(str(request.case_id), ())
        return own or self.by_target.get((request.relation_id, request.target_new), ())

    def texts(self) -> Iterator[str]:
        """Yield every text."""
        for group in (*self.by_case.values(), *self.by_target.values()):
            yield from group


def embedded_reference_texts() -> ReferenceTexts:
    """Return what the embedded world says of the subjects that share an answer.

    Of each relation's answer, every fact of every subject that has it, as a sentence.
    """
    world = default_world()
    found: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for facts in world.by_subject.values():
        sentences = {fact.sentence(fact.templates[0]): None for fact in facts}
        for fact in facts:
            found[fact.relation, fact.answer] |= sentences
    return ReferenceTexts({}, {name: tuple(texts) for name, texts in found.items()})


def _texts(record: Any, where: str) -> Texts:
    """Return a record's texts, each of which may stand in an object of its own."""
    found = record.get("texts", record.get("samples")) if _is_object(record) else None
    if not isinstance(found, list):
        raise RequestFormatError(
            f"{where}: expected an object with a list 'texts', found "
            f"{shorten(record) if _is_object(record) else repr(record)}."
        )
    items = [item.get("text") if _is_object(item) else item for item in found]
    if not all(isinstance(item, str) for item in items):
        raise RequestFormatError(
            f"{where}: expected texts, or objects with a 'text', found "
            f"{shorten(found, 2)}."
        )
    return tuple(item for item in items if item.strip())


def _target(record: Record, names: Mapping[str, str], where: str) -> str:
    """Return what a record's answer is called; empty if no case asks for its id."""
    if "target_id" in record and "target" not in record:
        return names.get(str(record["target_id"]), "")
    try:
        return read_text(record, "target").strip()
    except RequestFormatError as error:
        raise RequestFormatError(
            f"{where}: {error}; say by 'case_id' or 'target' what the texts are about."
        ) from error


def _values(source: str | Path) -> Iterator[Any]:
    """Yield the parsed records.

    Raises
    ------
    RequestFormatError
        If one could not be parsed.
    """
    for index, record in enumerate(iterate_records(source, None)):
        if record.error:
            raise RequestFormatError(f"{source}, record {index}: {record.error}")
        yield record.value


def _names(counterfact: str | Path | None, where: str) -> dict[str, str]:
    """Return what the ids of the answers in a CounterFact file are called."""
    if counterfact is None:
        raise RequestFormatError(
            f"{where}: expected a 'target', found a 'target_id'. Give the file of "
            "CounterFact too, which says what the id is called, or write 'target'."
        )
    found = {}
    for record in _values(counterfact):
        for side in ("target_new", "target_true"):
            name = read_text(record, f"requested_rewrite.{side}.id")
            text = read_text(record, f"requested_rewrite.{side}.str")
            found[name] = text.strip()
    return found


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
