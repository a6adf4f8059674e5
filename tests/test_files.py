import os
import shutil

import pytest

from flwr_collabedit.errors import ConfigurationError, DiskSpaceError
from flwr_collabedit.files import check_space, check_writable, new_folder, replacing


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"

    for text in ("first", "second"):
        with replacing(path) as draft:
            assert draft.suffix == ".txt"
            draft.write_text(text)

    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    with pytest.raises(OSError, match="full"), replacing(path) as draft:
        _fail_half_way(draft)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="full"), new_folder(tmp_path / "out") as draft:
        _fail_half_way(draft / "a")
    assert list(tmp_path.iterdir()) == []

    with new_folder(tmp_path / "out") as draft:
        (draft / "a").write_text("whole")
    assert (tmp_path / "out" / "a").read_text() == "whole"


def test_a_folder_with_content_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")

    with (
        pytest.raises(ConfigurationError, match="Choose another name"),
        new_folder(tmp_path / "out"),
    ):
        raise AssertionError("the block must not run")

    assert (tmp_path / "out" / "mine").read_text() == "keep"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="can be written to"):
        check_writable(tmp_path / "out")


@pytest.mark.parametrize("name", ["file", "file/out", "file/out/deeper"])
def test_a_file_where_a_folder_is_to_be_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="can be written to"):
        check_writable(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_asking_for_a_folder_leaves_nothing(tmp_path):
    check_writable(tmp_path / "new" / "out")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _fail_half_way(path):
    path.write_text("half")
    raise OSError("full")


def test_room_is_asked_of_the_folders_disk(tmp_path):
    free = shutil.disk_usage(tmp_path).free

    check_space(tmp_path, free // 2)
    with pytest.raises(DiskSpaceError, match="Free some space"):
        check_space(tmp_path, 2 * free)
