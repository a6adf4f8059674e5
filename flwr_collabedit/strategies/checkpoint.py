"""The server's state in a file: written whole after a round, read whole to go on.

One safetensors file a round, with the rest of the state as JSON in its header; the
rounds' reports, which have times in them, lie beside it. So the file of a resumed run
has the same bytes as that of one that was never interrupted.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flwr_collabedit.algebra.factors import SealedFactors
from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.algebra.ledger import Ledger, LedgerEntry
from flwr_collabedit.algebra.running_sum import RunningSum, StatisticsSum
from flwr_collabedit.conflict_resolution import Entry
from flwr_collabedit.errors import CheckpointError
from flwr_collabedit.files import replacing
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState
from flwr_collabedit.strategies.size_bound import SizeBound

_REPORTS = "reports.json"
_STATE = "state"


@dataclass(frozen=True)
class Checkpoint:
    """A folder of checkpoints of one run.

    Parameters
    ----------
    folder : Path
        Made when first written to.
    identity : mapping of str to str
        What must be the same for a run to go on: model, options, hyperparameters.
    keep : int
        How many of the newest are kept; 0 keeps all.
    """

    folder: Path
    identity: Mapping[str, str]
    keep: int = 1

    def save(
        self, server_round: int, state: ServerState, reports: list[RoundReport]
    ) -> None:
        """Write the state after a round; a reader sees the whole of it or none."""
        told = json.dumps([report.to_dict() for report in reports])
        with replacing(self.folder / _REPORTS) as draft:
            draft.write_text(told, encoding="utf-8")
        tensors, rest = _written(state)
        rest |= {"round": server_round, "identity": dict(self.identity)}
        text = json.dumps(rest, sort_keys=True)
        path = self.folder / f"round-{server_round:05d}.safetensors"
        with replacing(path) as draft:
            save_file(tensors, draft, metadata={_STATE: text})
        if self.keep:
            for old in self._files()[: -self.keep]:
                old.unlink()

    def load(self) -> tuple[int, ServerState, list[RoundReport]] | None:
        """Return the newest round, the state after it and the reports up to it.

        Raises
        ------
        CheckpointError
            If the checkpoint is of another model or other options, or damaged.
        """
        files = self._files()
        if not files:
            return None
        path = files[-1]
        try:
            with safe_open(path, framework="pt") as file:
                rest = json.loads((file.metadata() or {})[_STATE])
            self._check(path, rest["identity"])
            # Copied out of the mapped file into torch's own, aligned memory: products
            # of unaligned matrices may round differently.
            tensors = {name: t.clone() for name, t in load_file(path).items()}
            state = _read(tensors, rest)
            text = (self.folder / _REPORTS).read_text(encoding="utf-8")
            reports = [RoundReport(**fields) for fields in json.loads(text)]
        except CheckpointError:
            raise
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"Expected a checkpoint in {path} and its reports beside it, found "
                f"something else ({error!r}). Delete the file to go on from the one "
                "before, or the folder to start anew."
            ) from error
        done = int(rest["round"])
        return done, state, [r for r in reports if r.server_round <= done]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.safetensors"))

    def _check(self, path: Path, found: Mapping[str, str]) -> None:
        for name in {**self.identity, **found}:
            expected, actual = self.identity.get(name), found.get(name)
            if expected != actual:
                raise CheckpointError(
                    f"The checkpoint {path} was written with {name} {actual!r}, this "
                    f"run has {expected!r}. Give it the same, or a folder of its own."
                )


def _written(state: ServerState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a state and the rest of it, ready for JSON."""
    tensors = {f"delta/{name}": delta for name, delta in state.deltas.items()}
    history = state.history
    for name, total in history.sums.items():
        for part in ("gram", "cross"):
            running: RunningSum = getattr(total, part)
            tensors[f"{part}/{name}"] = running.total
            tensors[f"{part}_low/{name}"] = running.low
    for index, entry in enumerate(state.ledger.entries):
        for name, factors in entry.factors.items():
            tensors[f"ledger/{index}/key_factor/{name}"] = factors.key_factor
            tensors[f"ledger/{index}/residual_factor/{name}"] = factors.residual_factor
    rest = {
        "parameters": list(state.deltas),
        "history": [history.option, history.beta_0, history.beta_1],
        "num_edits": {name: s.num_edits for name, s in history.sums.items()},
        "ledger": [_entry(entry) for entry in state.ledger.entries],
        "took_part": {name: list(r) for name, r in state.took_part.items()},
        "sizes": dict(state.bound.medians),
        "tagged": [astuple(entry) for entry in state.tagged],
        "inactive": {name: e.to_json() for name, e in state.inactive.items()},
        "augmented": {name: e.to_json() for name, e in state.augmented.items()},
        "left_out": {name: e.to_json() for name, e in state.left_out.items()},
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, rest


def _entry(entry: LedgerEntry) -> list[Any]:
    counts = {name: factors.num_edits for name, factors in entry.factors.items()}
    return [entry.client, entry.server_round, entry.is_withdrawal, counts]


def _read(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> ServerState:
    def running(part: str, name: str) -> RunningSum:
        return RunningSum(tensors[f"{part}/{name}"], tensors[f"{part}_low/{name}"])

    sums = {
        name: StatisticsSum(running("gram", name), running("cross", name), num_edits)
        for name, num_edits in rest["num_edits"].items()
    }
    entries = tuple(
        LedgerEntry(
            client,
            server_round,
            {
                name: SealedFactors(
                    tensors[f"ledger/{index}/key_factor/{name}"],
                    tensors[f"ledger/{index}/residual_factor/{name}"],
                    num_edits,
                )
                for name, num_edits in counts.items()
            },
            is_withdrawal,
        )
        for index, (client, server_round, is_withdrawal, counts) in enumerate(
            rest["ledger"]
        )
    )
    return ServerState(
        deltas={name: tensors[f"delta/{name}"] for name in rest["parameters"]},
        history=replace(EditHistory(*rest["history"]), sums=sums),
        ledger=Ledger(entries),
        took_part={name: tuple(r) for name, r in rest["took_part"].items()},
        tagged=tuple(Entry(*fields) for fields in rest["tagged"]),
        inactive=_edit_sets(rest["inactive"]),
        bound=SizeBound(rest["sizes"]),
        left_out=_edit_sets(rest["left_out"]),
        augmented=_edit_sets(rest["augmented"]),
    )


def _edit_sets(texts: Mapping[str, str]) -> dict[str, EditSet]:
    return {name: EditSet.from_json(text) for name, text in texts.items()}
