"""Read, replace and skip what modules compute during a forward, without subclassing.

The difference between blocks that return a tensor and blocks that return a tuple whose
first element is that tensor is handled here and nowhere else. Every hook is removed
when its context ends, also by an exception.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from flwr_collabedit.errors import ConfigurationError, nearest

Output = Tensor | tuple[Any, ...]


class _Stop(Exception):  # noqa: N818 (a signal that no caller sees, not an error)
    """Ends a forward whose remaining modules are not needed."""


@contextmanager
def trace(
    model: nn.Module, names: Sequence[str], *, inputs: bool = False, stop: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that a forward fills with hidden tensors, by module name.

    Parameters
    ----------
    model : nn.Module
        The model that ``names`` are relative to. The forward may be any of its
        submodules', such as the decoder's.
    names : sequence of str
        Modules to watch. A module that runs twice leaves its last value.
    inputs : bool
        Record each module's first positional input in place of its output.
    stop : bool
        End the forward as soon as every module was seen: no module after it runs (with
        ``inputs``, not even the last one watched), and neither do the statements that
        follow the forward inside the ``with`` block.

    Yields
    ------
    dict of str to Tensor
        The model's own tensors, with their graph when gradients are on: read them,
        never write into them. Empty before the forward.

    Raises
    ------
    ConfigurationError
        If the model has no module of that name.
    """
    traced: dict[str, Tensor] = {}
    signal = _Stop()

    def record(name: str, hidden: Tensor) -> None:
        traced[name] = hidden
        if stop and len(traced) == len(set(names)):
            raise signal

    with ExitStack() as hooks:
        for name in names:
            module = find_module(model, name)
            if inputs:
                handle = module.register_forward_pre_hook(
                    lambda _, args, name=name: record(name, args[0])
                )
            else:
                handle = module.register_forward_hook(
                    lambda _, __, output, name=name: record(name, _hidden(output))
                )
            hooks.callback(handle.remove)
        try:
            yield traced
        except _Stop as raised:
            if raised is not signal:
                raise


@contextmanager
def replace_output(
    model: nn.Module, name: str, fn: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Let the module's hidden output be ``fn(hidden)`` while the context lasts.

    ``fn`` must return a new tensor, so that autograd and other hooks stay sound; it is
    moved to where the module computes. The other elements of a tuple pass unchanged.

    Raises
    ------
    ConfigurationError
        If the model has no module of that name.
    """

    def hook(_: nn.Module, __: tuple[Any, ...], output: Output) -> Output:
        hidden = _hidden(output)
        replaced = fn(hidden).to(hidden.device)
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    handle = find_module(model, name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def bypassed(modules: Iterable[nn.Module], *, as_tuple: bool) -> Iterator[None]:
    """Let blocks return their hidden input unchanged while the context lasts.

    A forward can so start above them: put the hidden states in by
    :func:`replace_output` on the last one. Hooks on a bypassed module still run. A
    bypassed block leaves the key-value cache as it is.

    Parameters
    ----------
    modules : iterable of nn.Module
        Blocks whose first positional argument is the hidden states.
    as_tuple : bool
        Return a 1-tuple, for families whose blocks return tuples
        (``LanguageModel.block_returns_tuple``).
    """

    def forward(hidden: Tensor, *_: object, **__: object) -> Output:
        return (hidden,) if as_tuple else hidden

    with ExitStack() as undo:
        for module in modules:
            own = vars(module)  # nn.Module.__call__ prefers it to the class's method
            if "forward" in own:
                undo.callback(own.__setitem__, "forward", own["forward"])
            else:
                undo.callback(own.__delitem__, "forward")
            own["forward"] = forward
        yield


def returns_tuple(model: nn.Module, name: str, run: Callable[[], object]) -> bool:
    """Return whether the module's output is a tuple in the forward that ``run`` does.

    The forward ends right after that module.
    """
    seen: list[bool] = []
    signal = _Stop()

    def hook(_: nn.Module, __: tuple[Any, ...], output: Output) -> None:
        seen.append(isinstance(output, tuple))
        raise signal

    handle = find_module(model, name).register_forward_hook(hook)
    try:
        run()
    except _Stop:
        pass
    finally:
        handle.remove()
    return seen[0]


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule of that name, or raise ``ConfigurationError``."""
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = (known for known, _ in model.named_modules() if known)
        raise ConfigurationError(
            f"Expected the name of a module of {type(model).__name__}; found "
            f"{name!r}. {nearest(name, known)}"
        ) from error


def _hidden(output: Output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
