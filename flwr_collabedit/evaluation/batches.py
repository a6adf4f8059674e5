"""Groups of texts of similar length, so that little of a batch is padding."""

from collections.abc import Callable, Iterator, Sequence

from flwr_collabedit.errors import ConfigurationError

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number of all, after every batch."""


def batches_by_length(
    lengths: Sequence[int], batch_size: int, progress: Progress | None = None
) -> Iterator[list[int]]:
    """Yield the indices of ``lengths``, shortest first, ``batch_size`` at a time.

    ``progress`` is called when the next batch is asked for, that is, when the one
    before is done.

    Raises
    ------
    ConfigurationError
        If ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigurationError(
            f"batch_size: expected at least 1, found {batch_size!r}. It is the number "
            "of texts that the model reads together; lower it only to save memory."
        )
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        yield batch
        if progress is not None:
            progress(start + len(batch), len(order))
