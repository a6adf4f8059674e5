"""What an edit is: the request a client acts on and the case it is scored by."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class EditRequest(BaseModel):
    """One fact to write into a model.

    Attributes
    ----------
    case_id : int or str
        Identifies the request within its data set.
    prompt : str
        A template with exactly one ``{}``, which stands for the subject. The model
        is to continue it with the new target.
    subject : str
        Whom or what the fact is about.
    target_new : str
        The answer that the edited model is to give, without a leading space.
    relation_id : str
        Name of the relation, or the empty string where the data has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: int | str
    prompt: Text
    subject: Text
    target_new: Text
    relation_id: str = ""

    @field_validator("prompt")
    @classmethod
    def _has_one_slot(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError(
                f"expected exactly one '{{}}' for the subject, found "
                f"{prompt.count('{}')} in {prompt!r}"
            )
        return prompt

    @field_validator("target_new", "subject")
    @classmethod
    def _strip(cls, text: str) -> str:
        return text.strip()


class Question(BaseModel):
    """A prompt about something that the edit must not change, and its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Text
    answer: Text


class MultiHopQuestion(BaseModel):
    """A question whose answer follows from one or more edits and what stays true.

    Attributes
    ----------
    phrasings : tuple of str
        Complete prompts that ask the same, at least one.
    answers : tuple of str
        The answer after the edits and other names of it, at least one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrasings: Annotated[tuple[Text, ...], Field(min_length=1)]
    answers: Annotated[tuple[Text, ...], Field(min_length=1)]


class EvaluationCase(BaseModel):
    """An edit request and everything that only its scoring sees.

    Attributes
    ----------
    request : EditRequest
        The edit that is scored.
    target_true : str or None
        The answer before the edit; ``None`` where the data has none (zsRE), and then
        the success metrics (ES, PS, NS) are not defined.
    paraphrase_prompts : tuple of str
        Complete prompts (no ``{}``) that ask for the same fact in other words.
    neighborhood : tuple of Question
        Prompts about other subjects, with the answer that must survive.
    same_subject : tuple of Question
        Other facts about the same subject, which must survive too.
    copied_from : int or None
        Index of the client that owns the case, where this is another client's copy of
        it (`flwr_collabedit.data.copies`); the request is the original's.
    conflicts_with : int, str or None
        ``case_id`` of the case that this one contradicts: the same fact with another
        target (`flwr_collabedit.data.conflicts`).
    related : tuple of Question
        Facts that support this one, each asked by a prompt with the subject in it.
        They are not scored; `flwr_collabedit.data.augmentation` edits them too.
    multi_hop : tuple of MultiHopQuestion
        What follows from this edit, together with others where it takes several.
    generation_prompts : tuple of str
        Beginnings of texts about the subject, which a model goes on with freely.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: EditRequest
    target_true: Text | None = None
    paraphrase_prompts: tuple[Text, ...] = ()
    neighborhood: tuple[Question, ...] = ()
    same_subject: tuple[Question, ...] = ()
    copied_from: Annotated[int, Field(ge=0)] | None = None
    conflicts_with: int | str | None = None
    related: tuple[Question, ...] = ()
    multi_hop: tuple[MultiHopQuestion, ...] = ()
    generation_prompts: tuple[Text, ...] = ()

    @property
    def rewrite_prompt(self) -> str:
        """The request's prompt with the subject filled in."""
        return self.request.prompt.replace("{}", self.request.subject)
