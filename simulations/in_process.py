"""A Flower grid in this process: the same apps without Ray, with one model copy.

For tests and for a GPU that holds one model. A client runs when its reply is pulled, so
that, as in a deployment, no more replies wait in memory than the server pulls at once.
"""

from collections.abc import Iterable
from logging import ERROR
from uuid import uuid4

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from flwr_collabedit.errors import ConfigurationError

_CLIENT_APP_RAISED = 2


class InProcessGrid(Grid):
    """Delivers messages to a ClientApp by calling it.

    Parameters
    ----------
    client_app : ClientApp
        Serves every client; each has a context of its own.
    num_clients : int
        Clients, with partition ids from 0.
    run_config : dict
        As ``context.run_config`` shows it to the clients.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        run_config: dict[str, str | int | float | bool] | None = None,
    ) -> None:
        # Message() asks for these; Flower's own processes set them when they start.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.client_app = client_app
        self.contexts = {
            1000 + index: Context(
                run_id=1,
                node_id=1000 + index,
                node_config={"partition-id": index, "num-partitions": num_clients},
                state=RecordDict(),
                run_config=run_config or {},
            )
            for index in range(num_clients)
        }
        self._waiting: dict[str, Message] = {}
        self._run: Run | None = None

    def set_run(self, run: Run) -> None:
        """Set what `run` returns."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that was set; there is none unless a caller sets one."""
        if self._run is None:
            raise ConfigurationError("No run was set; call set_run first.")
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message, as ``Message(...)`` does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all clients."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages until their replies are pulled."""
        ids = []
        for message in messages:
            message_id = str(uuid4())
            message.metadata.__dict__["_message_id"] = message_id
            message.content = _with_own_configs(message.content)
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the clients of these messages, one after another."""
        for message_id in list(message_ids):
            message = self._waiting.pop(message_id, None)
            if message is not None:
                yield self._deliver(message)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the reply to every message."""
        return list(self.pull_messages(self.push_messages(messages)))

    def _deliver(self, message: Message) -> Message:
        context = self.contexts[message.metadata.dst_node_id]
        try:
            return self.client_app(message, context)
        except Exception as error:
            # As Flower does: a client's failure is its reply, whatever it was.
            log(ERROR, "Client %s failed", context.node_id, exc_info=error)
            return Message(
                Error(code=_CLIENT_APP_RAISED, reason=repr(error)), reply_to=message
            )


def _with_own_configs(content: RecordDict) -> RecordDict:
    """Return the content with configurations that a client may change for itself."""
    return RecordDict(
        {
            name: ConfigRecord({**record})
            if isinstance(record, ConfigRecord)
            else record
            for name, record in content.items()
        }
    )


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    num_clients: int,
    run_config: dict[str, str | int | float | bool],
) -> None:
    """Run the two apps to their end in this process."""
    grid = InProcessGrid(client_app, num_clients, run_config)
    context = Context(
        run_id=1,
        node_id=1,
        node_config={},
        state=RecordDict(),
        run_config=run_config,
    )
    server_app(grid, context)
