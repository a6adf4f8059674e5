"""Replies of one exchange, held until all have come and can be compared.

They wait on disk, but for small ones, so that memory does not grow with the number of
clients. They are taken in the order of the clients' names: arrival does not show.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

from flwr.app import Message
from safetensors.torch import load, save
from torch import Tensor

from flwr_collabedit.messages.payloads import num_edits_of, sender_of
from flwr_collabedit.strategies.round_report import ReplyFigures
from flwr_collabedit.strategies.size_bound import SizeBound, Sizes

_IN_MEMORY_BYTES = 2**18


@dataclass
class HeldReply:
    """What one client has sent.

    Attributes
    ----------
    sender : str
        The client's name.
    num_edits : int
        How many edits its arrays stand for.
    figures : ReplyFigures
        What it says besides its arrays.
    """

    sender: str
    num_edits: int
    figures: ReplyFigures
    sizes: Sizes
    file: IO[bytes]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that were held, read anew."""
        self.file.seek(0)
        # Copied into torch's own, aligned memory: see `messages.payloads`.
        return {name: one.clone() for name, one in load(self.file.read()).items()}


class HeldReplies(AbstractContextManager["HeldReplies"]):
    """All replies of an exchange; leaving the context frees them."""

    def __init__(self) -> None:
        self._held: dict[str, HeldReply] = {}

    def hold(self, reply: Message, tensors: Mapping[str, Tensor], sizes: Sizes) -> None:
        """Keep one checked reply.

        Parameters
        ----------
        reply : Message
            Its arrays are dropped.
        tensors : mapping of str to Tensor
            What is to be taken from it.
        sizes : mapping of str to float
            What it is compared by.
        """
        figures = ReplyFigures.of(reply)
        file = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - freed on exit
        file.write(save({name: one.contiguous() for name, one in tensors.items()}))
        sender = sender_of(reply)
        self._held[sender] = HeldReply(
            sender, num_edits_of(reply), figures, sizes, file
        )

    def settle(self, bound: SizeBound, factor: float | None) -> dict[str, str]:
        """Let go of the replies that are too large; return why, by sender."""
        if factor is None:
            return {}
        found = {
            name: bound.reason(held.sizes, factor) for name, held in self._held.items()
        }
        reasons = {name: why for name, why in found.items() if why}
        for name in reasons:
            self._held.pop(name).file.close()
        return reasons

    @property
    def sizes(self) -> dict[str, Sizes]:
        """What each reply is compared by, by sender."""
        return {name: held.sizes for name, held in self._held.items()}

    def __iter__(self) -> Iterator[HeldReply]:
        return (self._held[name] for name in sorted(self._held))

    def __exit__(self, *_: object) -> None:
        for held in self._held.values():
            held.file.close()
