"""Our strategies for Flower's legacy API: ``ServerAppComponents(strategy=...)``.

Flower's legacy server knows one fit a round; ours takes several exchanges. So the
server is shown one client that stands for all: its ``fit`` is a whole round, its
``evaluate`` a whole evaluation, run by the strategy itself. There is no second loop and
no second arithmetic: the same seed gives the same weights through either API.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import flwr.compat.common.recorddict_compat as compat
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    Scalar,
    Status,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import Strategy
from flwr.serverapp import Grid

from flwr_collabedit.errors import ConfigurationError, shorten
from flwr_collabedit.messages.legacy_records import scalars
from flwr_collabedit.messages.payloads import METRICS, NUM_EDITS
from flwr_collabedit.strategies.legacy_grid import LegacyGrid
from flwr_collabedit.strategies.round_loop import RoundLoop

_OK = Status(Code.OK, "")


class LegacyStrategy(Strategy):
    """A strategy of this package behind Flower's legacy interface.

    The clients may be a `flwr_collabedit.client_app.make_client_app` or any
    ``ClientApp(client_fn=...)`` around an `flwr_collabedit.client.EditingClient`.

    Parameters
    ----------
    strategy : RoundLoop
        Any strategy of `flwr_collabedit.strategies`; it holds the state and the
        reports. Its own ``exchange_timeout_s`` bounds every exchange, in the place of
        ``ServerConfig.round_timeout``.
    num_rounds : int
        As in the ``ServerConfig``.
    """

    def __init__(self, strategy: RoundLoop, *, num_rounds: int) -> None:
        self.strategy, self.num_rounds = strategy, num_rounds
        self._arrays = strategy.initial_arrays()

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        """Score the unedited model or resume, as `RoundLoop.open` does; return zeros.

        Raises
        ------
        ConfigurationError
            If the clients are not reached through a Flower grid.
        """
        grid = self._grid(client_manager)
        timeout = self.strategy.options.exchange_timeout_s
        self.strategy.open(grid, self._arrays, self.num_rounds, timeout)
        return _parameters(self._arrays)

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Return the one client whose fit is the round."""
        federation = _Federation(self, self._grid(client_manager), server_round)
        return [(federation, FitIns(parameters, {}))]

    def aggregate_fit(
        self,
        server_round: int,
        results: Sequence[tuple[ClientProxy, FitRes]],
        failures: Sequence[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Return the cumulative deltas and the round's figures.

        Raises
        ------
        AggregationError
            If the round was refused, and whatever else it failed with.
        """
        _raise_first(failures)
        ((_, found),) = results
        return found.parameters, found.metrics

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Return the one client whose evaluation is all clients', if it is due."""
        keeper = self.strategy.keeper
        if keeper.has(server_round) or not keeper.is_evaluated(server_round):
            return []
        federation = _Federation(self, self._grid(client_manager), server_round)
        return [(federation, EvaluateIns(parameters, {}))]

    def aggregate_evaluate(
        self,
        server_round: int,
        results: Sequence[tuple[ClientProxy, EvaluateRes]],
        failures: Sequence[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Return the mean loss of the new targets, in nats, and the scores."""
        _raise_first(failures)
        ((_, found),) = results
        return found.loss, found.metrics

    def evaluate(self, server_round: int, parameters: Parameters) -> None:
        """Return nothing: the server has no model to evaluate."""

    def fit_round(self, grid: Grid, server_round: int) -> FitRes:
        """Run a round, as Flower's message API would."""
        strategy = self.strategy
        strategy.configure_train(server_round, self._arrays, ConfigRecord(), grid)
        arrays, metrics = strategy.aggregate_train(server_round, ())
        self._arrays = arrays or self._arrays
        return FitRes(
            _OK,
            _parameters(self._arrays),
            strategy.keeper.report(server_round).num_edits,
            _scalars(metrics),
        )

    def evaluate_round(self, grid: Grid, server_round: int) -> EvaluateRes:
        """Run an evaluation, as Flower's message API would."""
        strategy = self.strategy
        messages = strategy.configure_evaluate(
            server_round, self._arrays, ConfigRecord(), grid
        )
        timeout = strategy.options.exchange_timeout_s
        replies = list(grid.send_and_receive(messages, timeout=timeout))
        metrics = strategy.aggregate_evaluate(server_round, replies)
        dropped = strategy.keeper.report(server_round).dropped
        loss, num_cases = _mean_loss(
            r for r in replies if str(r.metadata.src_node_id) not in dropped
        )
        return EvaluateRes(_OK, loss, num_cases, _scalars(metrics))

    def _grid(self, client_manager: ClientManager) -> Grid:
        client_manager.num_available()  # Flower registers those there are with it
        timeout_s = self.strategy.options.exchange_timeout_s
        client_manager.wait_for(1, timeout=int(timeout_s))
        for proxy in client_manager.all().values():
            if isinstance(proxy, GridClientProxy):
                return LegacyGrid(proxy.grid)
        raise ConfigurationError(
            "Expected clients that are connected through a Flower SuperLink or "
            f"simulation, found {shorten(map(type, client_manager.all().values()))} "
            f"after {timeout_s:.0f} s. Start them as SuperNodes or by `flwr run`."
        )


def _never(self: ClientProxy, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("Flower's server asks clients for fits only.")


class _Federation(ClientProxy):
    """Stands for all clients in one round."""

    def __init__(self, legacy: LegacyStrategy, grid: Grid, server_round: int) -> None:
        super().__init__("all clients")
        self._legacy, self._grid, self._round = legacy, grid, server_round

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None) -> FitRes:
        return self._legacy.fit_round(self._grid, self._round)

    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None
    ) -> EvaluateRes:
        return self._legacy.evaluate_round(self._grid, self._round)

    def __getattr__(self, name: str) -> NoReturn:
        if name != "node_id":
            raise AttributeError(name)
        # Flower's workflows ask for it, in order to send messages themselves.
        raise ConfigurationError(
            "Flower's workflows send one message a client and round. Use "
            "ServerAppComponents(strategy=...), or the strategy's 'secure' option "
            "for secure aggregation."
        )

    get_properties = get_parameters = reconnect = _never


def _raise_first(failures: Sequence[Any]) -> None:
    for failure in failures:
        raise failure


def _parameters(arrays: ArrayRecord) -> Parameters:
    return compat.arrayrecord_to_parameters(arrays, keep_input=True)


def _scalars(metrics: MetricRecord | None) -> dict[str, Scalar]:
    return scalars(dict(metrics or {}))


def _mean_loss(replies: Iterable[Message]) -> tuple[float, int]:
    losses = []
    for reply in replies:
        metrics: Any = reply.content.metric_records[METRICS]
        losses.append((float(metrics["loss"]), int(metrics[NUM_EDITS])))
    num_cases = sum(count for _, count in losses)
    total = sum(loss * count for loss, count in losses)
    return total / max(num_cases, 1), num_cases
