"""A party of the federation: what it does with each message, and what it keeps."""

from flwr_collabedit.client.editing_client import EditingClient

__all__ = ["EditingClient"]
