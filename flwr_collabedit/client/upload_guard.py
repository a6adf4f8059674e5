"""A party's own bound on what it uploads: enough edits mixed, or nothing leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import Literal, get_args

from flwr.common import log

from flwr_collabedit.data.normal_form import normal_form
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.errors import ConfigurationError, PrivacyError

FewEdits = Literal["refuse", "warn"]


@dataclass(frozen=True)
class UploadGuard:
    """Refuses, or warns of, uploads that mix too few edits.

    ``K K^T`` of one edit is its key, up to the sign. Edits of one subject count once,
    since their keys are equal or nearly so. An upload without edits says nothing and
    passes. See ``docs/privacy.md`` for what a minimum gives and what it does not.

    Attributes
    ----------
    min_edits : int
        Fewest edits, of different subjects, in an upload; 1 lets all pass.
    few_edits : {"refuse", "warn"}
        Whether an upload of fewer raises or is logged at the client, and sent.

    Raises
    ------
    ConfigurationError
        If one of them is out of range.
    """

    min_edits: int = 1
    few_edits: FewEdits = "refuse"

    def __post_init__(self) -> None:
        if self.min_edits < 1:
            raise ConfigurationError(
                f"Expected min_edits_per_upload of at least 1, found {self.min_edits}. "
                "Use 1 to let every upload pass."
            )
        if self.few_edits not in get_args(FewEdits):
            raise ConfigurationError(
                f"Expected few_edits 'refuse' or 'warn', found {self.few_edits!r}."
            )

    def check_sum(self, name: str, requests: Sequence[EditRequest]) -> None:
        """Check an upload that adds up these edits: statistics or a solved delta.

        Parameters
        ----------
        name : str
            The client's, for the text; nothing of a request is in it.
        requests : sequence of EditRequest
            What the upload is to be made of.

        Raises
        ------
        PrivacyError
            If there are too few and they are to be refused.
        """
        found = len({normal_form(request.subject) for request in requests})
        self._check(name, found, "Gather more edits for a round, or lower")

    def check_each(self, name: str, requests: Sequence[EditRequest]) -> None:
        """Check an upload in which every edit's key stands by itself.

        Raises
        ------
        PrivacyError
            If there is any edit, two are asked for, and fewer are to be refused.
        """
        found = min(1, len(requests))
        self._check(
            name, found, "Mediator vectors never mix edits: do not share, or lower"
        )

    def _check(self, name: str, found: int, remedy: str) -> None:
        if found == 0 or found >= self.min_edits:
            return
        text = (
            f"Client {name!r} expected an upload of at least {self.min_edits} edits of "
            f"different subjects mixed, found {found}: fewer show too much of their "
            f"keys. {remedy} min_edits_per_upload."
        )
        if self.few_edits == "refuse":
            raise PrivacyError(text)
        log(WARNING, "%s It is sent all the same.", text)
