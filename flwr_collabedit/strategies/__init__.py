"""Flower strategies: thin shells over ``flwr_collabedit.algebra``."""

from flwr_collabedit.strategies.collab_edit import CollabEditStrategy
from flwr_collabedit.strategies.declarations import DeclarationRules
from flwr_collabedit.strategies.edit_avg import EditAvg
from flwr_collabedit.strategies.edit_strategy import EditStrategy
from flwr_collabedit.strategies.fed_edit import FedEditStrategy
from flwr_collabedit.strategies.legacy import LegacyStrategy
from flwr_collabedit.strategies.local_only import LocalOnlyStrategy
from flwr_collabedit.strategies.round_guard import RoundGuard
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.secure_sum import SecureAggregation
from flwr_collabedit.strategies.simple_average import SimpleAverage
from flwr_collabedit.strategies.task_arithmetic import TaskArithmetic
from flwr_collabedit.strategies.ties import TiesMerging
from flwr_collabedit.strategies.withdrawal import Withdrawal

__all__ = [
    "CollabEditStrategy",
    "DeclarationRules",
    "EditAvg",
    "EditStrategy",
    "FedEditStrategy",
    "LegacyStrategy",
    "LocalOnlyStrategy",
    "RoundGuard",
    "RoundReport",
    "SecureAggregation",
    "SimpleAverage",
    "TaskArithmetic",
    "TiesMerging",
    "Withdrawal",
]
