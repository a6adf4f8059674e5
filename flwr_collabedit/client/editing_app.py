"""The Flower ``ClientApp`` around an `EditingClient`, for both of Flower's APIs."""

from collections.abc import Callable
from logging import ERROR

from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Scalar, log
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS

from flwr_collabedit.errors import (
    ClientError,
    ConfigurationError,
    HypernetworkError,
    PayloadError,
    PrivacyError,
    SecondMomentError,
    WithdrawalError,
)
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.legacy_records import is_legacy, reply_content
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    Arrays,
    array_keys,
    to_record,
)

# Their texts name settings, files and sizes, never a fact.
_TOLD = (
    ConfigurationError,
    HypernetworkError,
    PayloadError,
    PrivacyError,
    SecondMomentError,
    WithdrawalError,
)

ClientFn = Callable[[Context], NumPyClient]


def make_client_app(client_fn: ClientFn) -> ClientApp:
    """Return a ClientApp that answers strategies of both APIs, plain or secure.

    Parameters
    ----------
    client_fn : callable
        Makes the party's `flwr_collabedit.client.EditingClient` from Flower's context;
        called for every message.
    """
    app = EditingApp(client_fn)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config, arrays = _read(message)
        instruction = Instruction.from_config(config)
        _check_masked(bool(instruction.secure), is_masked=False)
        found, num_edits, figures = client_fn(context).fit(arrays, config)
        keys = array_keys(instruction.measured, instruction.form)
        content = reply_content(to_record(keys, found), num_edits, figures)
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        config, arrays = _read(message)
        loss, num_cases, figures = client_fn(context).evaluate(arrays, config)
        content = reply_content(None, num_cases, {"loss": loss, **figures})
        return Message(content, reply_to=message)

    return app


class EditingApp(ClientApp):
    """A ClientApp that tells the two APIs, and secure aggregation, apart by records.

    Flower's own is for one API or the other, and its SecAgg+ mod refuses messages that
    are not of its protocol. Here legacy messages go to a legacy app of the same
    client, and through the mod where they belong to the protocol.

    Parameters
    ----------
    client_fn : callable
        As in `make_client_app`.
    """

    def __init__(self, client_fn: ClientFn) -> None:
        super().__init__()
        self._legacy = ClientApp(lambda context: client_fn(context).to_client())

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message of either API.

        Raises
        ------
        PayloadError
            If statistics that are to be masked would leave unmasked, or the reverse.
        ClientError
            For an error whose text may hold a fact; the client's own log has it.
        """
        try:
            return self._answer(message, context)
        except _TOLD:
            raise
        except Exception as error:
            # Flower sends an exception's text to the server.
            log(ERROR, "Round failed at this client", exc_info=error)
            raise ClientError(
                f"{type(error).__name__}; the client's own log says more."
            ) from None

    def _answer(self, message: Message, context: Context) -> Message:
        if not is_legacy(message):
            return super().__call__(message, context)
        configs = message.content.config_records
        is_masked = RECORD_KEY_CONFIGS in configs
        if asked := configs.get("fitins.config"):
            _check_masked(bool(asked.get("secure")), is_masked)
        if is_masked:
            return secaggplus_mod(message, context, self._legacy)
        return self._legacy(message, context)


def _check_masked(is_secure: bool, is_masked: bool) -> None:
    if is_secure == is_masked:
        return
    if is_secure:
        raise PayloadError(
            "Statistics for secure aggregation are asked for outside its protocol, "
            "where they would leave unmasked. Use the strategy's 'secure' option."
        )
    raise PayloadError(
        "Plain statistics are asked for inside secure aggregation, which would clip "
        "them in silence. Use CollabEditStrategy(..., secure=SecureAggregation()) in "
        "the place of Flower's workflow."
    )


def _read(message: Message) -> tuple[dict[str, Scalar], Arrays]:
    arrays: ArrayRecord = message.content.array_records[ARRAYS]
    record: ConfigRecord = message.content.config_records[CONFIG]
    config = {k: v for k, v in record.items() if not isinstance(v, list)}
    return config, [array.numpy() for array in arrays.values()]
