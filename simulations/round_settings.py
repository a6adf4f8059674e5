"""Settings of runs that go on: history, conflicts, withdrawal, damage, checkpoints."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Share = Annotated[float, Field(ge=0, le=1)]


class RoundSettings(BaseModel):
    """Settings of many rounds; `simulations.settings` has all others.

    Attributes
    ----------
    history, beta_0, beta_1
        Of CollabEdit, see `flwr_collabedit.strategies.CollabEditStrategy`.
    repeat_rounds : bool
        Whether every round has all of a client's cases again, for studies of overlap,
        instead of each having its part of them.
    withdraw : str
        Comma-separated ``client:NAME@ROUND``, ``round:NUMBER@ROUND`` and
        ``case:ID@ROUND``: what is taken back before which round. History ``d4s`` only.
    conflict_policy : str
        ``report``, ``first-come``, ``last-come``, ``priority`` or ``majority``; empty
        exchanges no tags.
    conflict_priority : str
        Comma-separated names of clients, the most important first.
    overlap : str
        Whether ``all`` edits of the same fact and target are written or ``once``.
    conflict_key : str
        Absolute path of the clients' shared key; empty for one made for the run.
    conflict_share, conflict_later
        Share of the cases for which another client gets a contradicting one, on top of
        ``num_edits``; whether in a later round or in the same.
    conflict_augment : bool
        Whether winners of a conflict are written with their paraphrases.
    presence, present_from, skip_present
        See `flwr_collabedit.strategies.DeclarationRules`.
    health_texts, health_samples
        ``embedded``, a text or JSON file or a hub id; how many texts, and prompts made
        from them, the model's health is measured on, 0 for none.
    size_factor, max_edits, max_norm
        Bounds on each client's reply, see
        `flwr_collabedit.strategies.round_options.RoundOptions`; 0 is none. Under secure
        aggregation, where the server sees no single reply, there are none.
    max_perplexity_increase, warn_perplexity_increase, warn_norm_increase
        See `flwr_collabedit.strategies.RoundGuard`; a maximum of 0 undoes no round.
    min_edits_per_upload, few_edits
        Of every client, see `flwr_collabedit.client.EditingClient`. Clients that refuse
        are left out of a round: ``min_replies`` must allow it.
    exchange_timeout : float
        Seconds, above 0, for which each exchange waits for replies and each round for
        clients to connect; then ``min_replies`` are enough.
    checkpoints : str
        ``none``, the ``last`` or ``all`` states of the server are kept in the run
        folder. FedEdit has none.
    resume : bool
        Whether to go on from the run folder's checkpoint instead of starting anew.
    """

    history: Literal["none", "dynamic-covariance", "d4s"] = "none"
    beta_0: Annotated[float, Field(gt=0)] = 1.0
    beta_1: Annotated[float, Field(gt=0)] = 1.0
    repeat_rounds: bool = False
    withdraw: str = ""
    conflict_policy: Literal[
        "", "report", "first-come", "last-come", "priority", "majority"
    ] = ""
    conflict_priority: str = ""
    overlap: Literal["all", "once"] = "all"
    conflict_key: str = ""
    conflict_share: Share = 0.0
    conflict_later: bool = False
    conflict_augment: bool = False
    presence: Literal["", "answer", "residual"] = ""
    present_from: Annotated[float, Field(gt=0, le=1)] = 0.8
    skip_present: bool = False
    health_texts: str = "embedded"
    health_samples: Annotated[int, Field(ge=0)] = 50
    size_factor: Annotated[float, Field(ge=0)] = 8.0
    max_edits: Annotated[int, Field(ge=0)] = 0
    max_norm: Annotated[float, Field(ge=0)] = 0.0
    max_perplexity_increase: Annotated[float, Field(ge=0)] = 0.0
    warn_perplexity_increase: Annotated[float, Field(gt=0)] = 0.1
    warn_norm_increase: Annotated[float, Field(gt=0)] = 0.1
    min_edits_per_upload: Annotated[int, Field(ge=1)] = 1
    few_edits: Literal["refuse", "warn"] = "refuse"
    exchange_timeout: Annotated[float, Field(gt=0)] = 3600.0
    checkpoints: Literal["none", "last", "all"] = "last"
    resume: bool = False
