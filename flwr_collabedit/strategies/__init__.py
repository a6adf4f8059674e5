"""Flower strategies: thin shells over ``flwr_collabedit.algebra``."""

from flwr_collabedit.strategies.collab_edit import CollabEditStrategy
from flwr_collabedit.strategies.edit_strategy import EditStrategy
from flwr_collabedit.strategies.round_report import RoundReport

__all__ = ["CollabEditStrategy", "EditStrategy", "RoundReport"]
