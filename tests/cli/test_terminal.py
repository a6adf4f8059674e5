import errno
import json

import pytest
import torch
import typer

from flwr_collabedit.cli.terminal import ExitCode, terminal
from flwr_collabedit.errors import ConfigurationError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("Expected a, found b."), ExitCode.MISTAKE, "found b"),
        (torch.OutOfMemoryError("CUDA out of memory. More."), 3, "--dtype bfloat16"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 3, "free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "may read"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 2, "may read or write"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), 2, "directory"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "Interrupted"),
    ],
    ids=["mistake", "memory", "disk", "permission", "read-only", "file", "ctrl-c"],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_user_can_mend_is_told_without_a_traceback(
    capsys, error, code, said, as_json
):
    with pytest.raises(typer.Exit) as end, terminal(as_json):
        raise error

    out, err = capsys.readouterr()
    assert end.value.exit_code == code
    assert said in err
    if as_json:
        assert said in json.loads(out)["error"]["message"]
    else:
        assert out == ""


def test_our_own_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), terminal():
        raise ZeroDivisionError


def test_json_is_all_that_standard_output_gets(capsys):
    with terminal(as_json=True) as told:
        told.note("working")
        with told.progress("edits", 2) as update:
            update(1)
            update(2, 2)
        told.result({"edits": 2}, "two edits")

    out, err = capsys.readouterr()
    assert json.loads(out) == {"edits": 2}
    assert "working" in err


def test_a_reader_gets_the_text(capsys):
    with terminal() as told:
        told.result({"edits": 2}, "two edits")

    assert capsys.readouterr().out == "two edits\n"


def test_brackets_are_no_markup(capsys):
    with terminal() as told:
        told.result({}, "runs/[red]mine[/red]")

    assert capsys.readouterr().out == "runs/[red]mine[/red]\n"
