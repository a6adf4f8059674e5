"""The benchmark of mediator vectors, at a tiny size."""

from benchmarks.mkv import re_edit, re_edit_table
from benchmarks.selection import select, selection_table
from simulations.settings import ExperimentSettings


def test_a_re_edit_is_measured_beside_the_edit_from_scratch(tmp_path):
    settings = ExperimentSettings(
        output_folder=str(tmp_path), context_starters="The", second_moment_samples=500
    )

    found = re_edit(settings, 3)

    assert (found.holds_from_scratch, found.holds_re_edited) == (100.0, 100.0)
    assert found.steps >= 3
    assert min(found.targets_s, found.write_s, found.re_edit_s) > 0
    assert re_edit_table([found], "memit").row_count == 1


def test_selection_is_measured_beside_a_bare_product():
    found = select(clients=3, vectors=4, width=8)

    assert set(found) == {"select for all", "calibrate alpha"}
    for row in found.values():
        assert row["seconds"] > 0
        assert row["floor"] > 0
        assert row["held"] == 3 * 4 * 8 * 8 / 2**20
    assert selection_table(found, "tiny").row_count == 2
