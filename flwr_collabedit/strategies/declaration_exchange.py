"""The exchange in which clients declare their edits, and what is checked of it."""

from collections.abc import Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.declaration import DECLARATION, Declaration
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.payloads import sender_of
from flwr_collabedit.messages.replies import checked_config
from flwr_collabedit.strategies.declarations import DeclarationRules
from flwr_collabedit.strategies.messenger import Messenger
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState


def ask_declarations(
    messenger: Messenger,
    grid: Grid,
    nodes: Sequence[int],
    state: ServerState,
    rules: DeclarationRules,
    report: RoundReport,
) -> tuple[dict[str, Declaration], list[int]]:
    """Return what each client declares, by name, and the nodes that did.

    Raises
    ------
    AggregationError
        If too few do, or their tags are made with different keys.
    """
    declared: dict[str, Declaration] = {}
    instruction = messenger.instruction(
        report.server_round,
        phase="declare",
        measured_on="base" if state.history.is_from_base else "current",
        presence=rules.presence,
        tagged=rules.resolution is not None,
    )

    def accept(reply: Message) -> None:
        config = checked_config(reply.content, instruction)
        found = Declaration.from_json(config.get(DECLARATION))
        name = sender_of(reply)
        check_declaration(found, name, rules, state)
        declared[name] = found

    messages = messenger.messages(nodes, instruction, state)
    accepted = messenger.exchange(grid, messages, "declare", accept, report)
    check_keys(declared)
    return declared, accepted


def check_declaration(
    found: Declaration, name: str, rules: DeclarationRules, state: ServerState
) -> None:
    """Check that a client declares what it was asked for and may declare.

    Raises
    ------
    PayloadError
        If tags or presence are missing, or it takes back what is not in force.
    """
    asked = (
        ("fact_tags", rules.resolution is not None),
        ("presence", bool(rules.presence)),
    )
    for part, is_asked in asked:
        if is_asked and len(getattr(found, part)) != found.num_edits:
            raise PayloadError(
                f"Expected {part} of all {found.num_edits} edits, found "
                f"{len(getattr(found, part))}."
            )
    if found.withdrawals and not rules.take_back:
        raise PayloadError("takes back edits, which this run does not allow.")
    inactive = state.inactive.get(name, EditSet()).rounds
    for server_round, places in found.withdrawals.rounds.items():
        gone = inactive.get(server_round, frozenset())
        is_gone = gone is None or not gone.isdisjoint(places or ())
        if is_gone or server_round not in state.took_part.get(name, ()):
            raise PayloadError(
                f"takes back edits of round {server_round} that are not in force; it "
                f"took part in rounds {list(state.took_part.get(name, ()))}."
            )


def check_keys(declared: Mapping[str, Declaration]) -> None:
    """Check that all clients made their tags with the same key.

    Raises
    ------
    AggregationError
        If not; nothing can be compared then, and whose key is wrong is unknown.
    """
    groups: dict[str, list[str]] = {}
    for name, found in sorted(declared.items()):
        groups.setdefault(found.key_check, []).append(name)
    if len(groups) > 1:
        raise AggregationError(
            "Expected the tags of all clients to be made with one conflict key, found "
            f"{len(groups)} keys: {list(groups.values())}. Give all the same key file."
        )
