"""The server: federated rounds, a simulation's pooled reference, the report."""

import time
from logging import INFO
from typing import Any

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from flwr_collabedit.editors.kinds import solve_priors
from flwr_collabedit.export.edit_folder import DELTA_FILE, save_edit
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import RoundReport
from simulations import experiment
from simulations.conflicts import conflict_figures, judged_pairs, unresolved_requests
from simulations.finished_edit import edit_card
from simulations.pooled import PooledResult, edit_pooled, relative_gaps
from simulations.report import summarize_run, write_report
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings
from simulations.strategies import make_strategy
from simulations.written import active_cases, num_written, written_requests

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run configuration describes."""
    began = time.perf_counter()
    settings = ExperimentSettings.from_context(context)
    clients = experiment.clients_rounds(settings)
    config = experiment.editor_config(settings)
    lm = experiment.language_model(settings)
    folder = RunFolder(settings.folder)
    folder.start(settings.to_run_config(), resume=settings.resume)
    makes_key = settings.conflict_policy and not settings.conflict_key
    if makes_key and not settings.is_deployment:
        folder.make_conflict_key()
    for name, value in settings.to_run_config().items():
        log(INFO, "setting %s = %r", name, value)
    log(INFO, "Preparing context templates and second moments")
    parts = experiment.editor_parts(settings, lm, config)
    model = describe(lm, config.layers)

    def on_round(report: RoundReport) -> None:
        folder.append_round(report.to_dict())

    strategy = make_strategy(
        settings,
        model,
        config,
        parts.contexts,
        lambda: solve_priors(lm, config, parts),
        on_round,
    )
    # Flower's own loop sends the evaluations.
    rounds, wait_s = settings.num_rounds, settings.exchange_timeout
    result = strategy.start(grid, num_rounds=rounds, timeout=wait_s)
    deltas: dict[str, Tensor] = {}
    if result.arrays:  # clients with personal models leave none
        deltas = read_deltas(result.arrays, model)
    given = (settings, lm, config, parts)
    active = active_cases(clients, strategy)
    pooled: PooledResult | None = None
    gaps: dict[str, float] = {}
    if settings.pooled_reference:
        log(INFO, "Editing all requests as one party, for comparison")
        pooled = edit_pooled(*given, written_requests(clients, strategy), active)
        gaps = relative_gaps(deltas, pooled.deltas) if deltas else {}
    conflicts: dict[str, Any] = {}
    if deltas and (pairs := judged_pairs(clients, active)):
        conflicts = {"pairs": len(pairs), "after": conflict_figures(lm, pairs, deltas)}
        if settings.pooled_reference and settings.conflict_policy not in ("", "report"):
            log(INFO, "Editing without resolving conflicts, for comparison")
            requests = unresolved_requests(clients)
            unresolved = edit_pooled(*given, requests, []).deltas
            conflicts["before"] = conflict_figures(lm, pairs, unresolved)
    seconds = time.perf_counter() - began
    summary = summarize_run(settings, strategy.reports, pooled, gaps, seconds)
    summary["conflicts"] = conflicts
    num_edits = num_written(clients, strategy)
    card = edit_card(settings, config, model, summary["scores"], num_edits)
    if deltas:
        save_edit(folder.path / DELTA_FILE, deltas, card)
    if pooled is not None:
        card = card.model_copy(update={"method": "pooled", "num_clients": 1})
        path = folder.path / "pooled.safetensors"
        save_edit(path, pooled.deltas, card, pooled.codebook)
    write_report(folder, summary)
    log(INFO, "Results: %s", folder.path)
