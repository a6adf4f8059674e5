"""Reports: groups over seeds, words on what differs, a page that needs nothing else."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import fake_runs
import pytest
from fake_rounds import fake_round, old_round

from flwr_collabedit.errors import ConfigurationError
from simulations.comparison import compare
from simulations.comparison_page import write_comparison
from simulations.comparison_tables import tables
from simulations.comparison_words import orders, sentences
from simulations.finished_runs import home_of, read_runs
from simulations.settings import ExperimentSettings

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture
def add_run(tmp_path):
    def add(method, score, *, accuracy=None, kept=90.0, **settings):
        number = len(list(tmp_path.glob("sweep/cells/*")))
        folder = tmp_path / "sweep" / "cells" / f"{number:02d}"
        folder.mkdir(parents=True)
        own = ExperimentSettings(output_folder=str(folder), num_rounds=1, **settings)
        summary = fake_runs.summary(own, score)
        last = summary["rounds"][-1]["evaluation"]
        last |= {"accuracy_score": accuracy or score, "NA": kept, "retention": kept}
        summary["scores"]["before"] |= {"NA": 96.0, "retention": 99.0}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "method.json").write_text(json.dumps({"method": method}))
        return folder

    return add


@pytest.fixture
def study(add_run, tmp_path):
    """Task arithmetic wins by Score and loses by accuracy Score, as it really does."""
    for edits in (500, 1000):
        for seed, shift in enumerate((-1.0, 0.0, 1.0)):
            common = {"num_edits": edits, "seed": seed}
            add_run("CollabEdit", 80 + shift, **common)
            add_run(
                *("Task-Arithmetic", 90 + shift),
                **{"accuracy": 50 + shift, "kept": 48.0, "form": "dense"},
                **common,
                pooled_reference=False,
            )
    return tmp_path / "sweep"


def table(comparison, title):
    found = {name: rows for name, _, rows in tables(comparison)}
    return found[title]


def test_seeds_are_averaged_and_settings_are_kept_apart(study):
    comparison = compare(read_runs([study]))

    assert comparison.conditions == ["num-edits"]
    assert comparison.method_settings == ["form"]
    group = comparison.methods()[0]
    assert (group.method, group.conditions) == ("CollabEdit", {"num-edits": 500})
    # stdev of -1, 0, 1 is 1; 4.3027 / sqrt(3) = 2.484
    assert str(group.scores["Score"]) == "80.0 ± 2.5"


def test_both_scores_the_pooled_reference_and_the_unedited_model_are_in_the_table(
    study,
):
    rows = table(compare(read_runs([study])), "Scores")

    first = [(row["method"], row["Score"], row["accuracy_score"]) for row in rows[:4]]
    assert first == [
        ("CollabEdit: pooled", "81.0 ± 2.5", "81.0 ± 2.5"),
        ("CollabEdit", "80.0 ± 2.5", "80.0 ± 2.5"),
        ("Task-Arithmetic", "90.0 ± 2.5", "50.0 ± 2.5"),
        ("before editing", "1.0 ± 0.0", "1.0 ± 0.0"),
    ]


def shares(rows):
    return {
        row["method"]: (row["share of Score"], row["share of accuracy_score"])
        for row in rows
    }


def test_the_share_of_the_pooled_edit_is_taken_seed_by_seed(study, add_run):
    # CollabEdit: 79 / 80, 80 / 81 and 81 / 82 have mean 98.7646 and stdev 0.0152.
    # Task-Arithmetic takes the one that edits alike: 89 / 80, 90 / 81, 91 /
    # 82 have mean 111.1128 and stdev 0.1372; 49, 50, 51 over them 61.7258 and 0.4752.
    rows = table(compare(read_runs([study])), "Scores")

    assert shares(rows[:4]) == {
        "CollabEdit": ("98.8 ± 0.0", "98.8 ± 0.0"),
        "Task-Arithmetic": ("111.1 ± 0.3", "61.7 ± 1.2"),
        "CollabEdit: pooled": (None, None),
        "before editing": (None, None),
    }


@pytest.mark.parametrize(
    "other",
    [{"editor": "pmet"}, {"second_moment_weight": 7.0}, {"hyperparameters": "other"}],
    ids=lambda other: next(iter(other)),
)
def test_a_method_takes_the_reference_that_edits_alike(add_run, tmp_path, other):
    add_run("pooled too", 79)
    add_run("pooled too, edited otherwise", 39, **other)
    add_run("alike", 40, pooled_reference=False)
    add_run("otherwise", 30, pooled_reference=False, **other)
    add_run("of its own kind", 30, pooled_reference=False, editor="alphaedit")

    found = shares(table(compare(read_runs([tmp_path])), "Scores"))

    # The made-up pooled Scores are 80 and 40.
    assert (found["alike"][0], found["otherwise"][0]) == ("50.0", "75.0")
    assert found["of its own kind"] == (None, None)


def test_of_two_pooled_references_each_method_takes_its_own_only(add_run, tmp_path):
    add_run("one", 80)
    add_run("other", 40)
    add_run("without", 60, pooled_reference=False)

    found = shares(table(compare(read_runs([tmp_path])), "Scores"))

    # The made-up pooled Score is one more than the method's.
    assert found["one"][0] == f"{100 * 80 / 81:.1f}"
    assert found["other"][0] == f"{100 * 40 / 41:.1f}"
    assert found["without"] == (None, None)


def test_references_that_agree_are_one(add_run, tmp_path):
    add_run("one", 80)
    add_run("other", 80, accuracy=50)
    add_run("without", 60, pooled_reference=False)

    found = shares(table(compare(read_runs([tmp_path])), "Scores"))

    assert found["without"][0] == f"{100 * 60 / 81:.1f}"


def test_a_reference_of_other_seeds_is_none(add_run, tmp_path):
    add_run("one", 80, seed=0)
    for seed in (0, 1):
        add_run("without", 60, seed=seed, pooled_reference=False)

    found = shares(table(compare(read_runs([tmp_path])), "Scores"))

    assert found["one"][0] == f"{100 * 80 / 81:.1f}"
    assert found["without"] == (None, None)


def test_personal_models_show_received_facts_and_steps_saved(add_run, tmp_path):
    for seed, received in ((0, 80.0), (1, 90.0)):
        folder = add_run("FedEdit", 95, seed=seed, strategy="fed-edit")
        summary = json.loads((folder / "summary.json").read_text())
        summary["scores"] |= {
            "mean: own": {"Score": 96.0},
            "mean: received": {"Score": received},
            "mean: all": {"Score": 94.0},
        }
        # Two slots; a slot in which nothing was reused does not count it.
        slot = summary["rounds"][0]
        counts = {"gradient-steps": 1000, "steps-saved": 10 + 2 * seed}
        summary["rounds"] = [slot | {"mediator": counts}, slot]
        (folder / "summary.json").write_text(json.dumps(summary))
    add_run("CollabEdit", 80, seed=0)

    [row] = table(compare(read_runs([tmp_path])), "Personal models")

    assert row["method"] == "FedEdit"
    assert row["Score of own"] == "96.0 ± 0.0"
    assert row["Score of received"] == "85.0 ± 63.5"  # 12.706 * 7.07 / sqrt(2)
    assert row["accuracy_score of all"] is None
    assert (row["gradient-steps"], row["steps-saved"]) == ("1,000", "11")


def test_without_personal_models_there_is_no_table_of_them(study):
    titles = [title for title, _, _ in tables(compare(read_runs([study])))]

    assert "Personal models" not in titles


@pytest.fixture
def add_long_run(add_run):
    def add(method, *rounds, **settings):
        folder = add_run(method, 80, **settings)
        summary = json.loads((folder / "summary.json").read_text())
        summary["rounds"] = [*rounds]
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return add


def last_round(first, perplexity):
    return fake_round(
        *(2, first, 90.0),
        health={"perplexity": perplexity, "base-perplexity": 10.0, "kl-to-base": 0.001},
        weight_norms={"l1/h.3.w": 11.0, "l1/h.4.w": 12.5},
        base_norms={"l1/h.3.w": 10.0, "l1/h.4.w": 10.0},
    )


def test_what_later_rounds_did_is_shown_over_seeds(add_long_run, tmp_path):
    for seed, first in ((0, 60.0), (1, 80.0)):
        last = last_round(first, 10.5)
        add_long_run("D4S", fake_round(1, 100.0), last, seed=seed)

    [row] = table(compare(read_runs([tmp_path])), "What later rounds did")

    assert row == {
        "method": "D4S",
        # 12.706 * 14.14 / sqrt(2), and half of it
        "first": "70.0 ± 127.1",
        "all": "80.0 ± 63.5",
        "forgetting": "30.0 ± 127.1",
        "norm": "+25.0 ± 0.0",
        "perplexity": "+5.00 ± 0.00",
        "kl": "1.0e-03 ± 0.0e+00",
    }


def test_an_undone_last_round_is_counted_and_does_not_end_a_run(add_long_run, tmp_path):
    undone = fake_round(3, 1.0, 1.0, 1.0, refused="too much")
    add_long_run("D4S", fake_round(1, 100.0), last_round(60.0, 10.5), undone)

    [row] = table(compare(read_runs([tmp_path])), "What later rounds did")

    assert (row["first"], row["all"], row["undone"]) == ("60.0", "75.0", "1.0")


def test_old_runs_show_what_they_have_of_later_rounds(add_long_run, tmp_path):
    folder = add_long_run("old", old_round(1), old_round(2))
    lines = [old_round(0), old_round(1), old_round(2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "rounds.jsonl").write_text(text)

    comparison = compare(read_runs([tmp_path]))

    [row] = table(comparison, "What later rounds did")
    assert row == {"method": "old", "all": "80.0", "norm": "+20.0"}
    [columns] = [c for t, c, _ in tables(comparison) if t == "What later rounds did"]
    assert [column.key for column in columns] == ["method", "all", "norm"]


def test_runs_of_one_round_have_no_later_rounds(study):
    titles = [title for title, _, _ in tables(compare(read_runs([study])))]

    assert "What later rounds did" not in titles


def test_damage_is_what_the_unedited_model_had_more(study):
    rows = table(compare(read_runs([study])), "Damage")

    damaged = next(row for row in rows if row["method"] == "Task-Arithmetic")
    assert (damaged["NA lost"], damaged["retention lost"]) == ("48.0", "51.0")


def test_words_say_what_differs_and_that_the_orders_disagree(study):
    comparison = compare(read_runs([study]))

    words = " ".join(sentences(comparison))
    assert "12 runs of the model embedded with seeds 0, 1, 2." in words
    assert "Besides the method, the runs differ in num-edits (500, 1000)." in words
    assert "num-clients 8" in words.split("All have")[1]
    assert orders(comparison)[0] == (
        "num-edits 500: by Score Task-Arithmetic (90.0 ± 2.5) > CollabEdit (80.0 ± "
        "2.5); by accuracy Score, another order: CollabEdit (80.0 ± 2.5) > "
        "Task-Arithmetic (50.0 ± 2.5)."
    )


def test_runs_that_repeat_a_seed_count_once(add_run, tmp_path):
    for score in (70, 80):
        add_run("CollabEdit", score, seed=0)
    add_run("CollabEdit", 85, seed=1)

    group = compare(read_runs([tmp_path])).methods()[0]

    assert group.num_seeds == 2
    assert group.scores["Score"].mean == pytest.approx(80.0)


def test_figures_are_drawn_for_what_varies_only(study, add_run):
    write_comparison([study])
    drawn = {path.stem for path in (study / "report_figures").iterdir()}

    assert drawn == {
        *("score_against_edits_0", "bytes_against_edits_0"),
        *("success_0", "success_1", "gap_to_pooled_0", "gap_to_pooled_1"),
    }


def test_runs_of_several_rounds_are_followed_over_them(add_long_run, tmp_path):
    add_long_run("D4S", fake_round(1, 100.0), last_round(60.0, 10.5))
    write_comparison([tmp_path / "sweep"])
    drawn = {path.stem for path in (tmp_path / "sweep/report_figures").iterdir()}

    assert {"efficacy_over_rounds_0", "norm_over_rounds_0"} <= drawn


def test_the_markdown_refers_to_its_figures(study):
    write_comparison([study])

    text = (study / "report.md").read_text(encoding="utf-8")
    figures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert figures
    assert all((study / name).exists() for name in figures)
    assert (
        "| Task-Arithmetic | 500 | 90.0 ± 2.5 | 111.1 ± 0.3 | 50.0 ± 2.5 | 61.7" in text
    )


class PageReader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.sources, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(study):
    page = write_comparison([study])

    reader = PageReader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.open == []
    assert "script" not in reader.tags
    assert len(reader.sources) > 1
    assert all(source.startswith("data:") for source in reader.sources)


def test_text_of_runs_is_escaped_on_the_page(add_run, tmp_path):
    add_run("<b>bold</b>", 50)

    page = write_comparison([tmp_path / "sweep"]).read_text(encoding="utf-8")

    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page


def test_the_report_lies_beside_the_runs(study):
    cells = sorted((study / "cells").iterdir())

    assert home_of(read_runs([study]), [study]) == study
    assert home_of(read_runs(cells[:2]), cells[:2]) == study / "cells"


def test_runs_of_different_models_are_refused_before_anything_is_written(
    add_run, tmp_path
):
    add_run("CollabEdit", 80)
    add_run("CollabEdit", 80, model="gpt2")

    with pytest.raises(ConfigurationError, match=r"one model.*'embedded', 'gpt2'"):
        write_comparison([tmp_path / "sweep"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_finished_runs_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"found no summary\.json"):
        read_runs([tmp_path])


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Chromium")
def test_the_page_opens_in_a_browser_without_errors(study, tmp_path):
    page = write_comparison([study])
    picture = tmp_path / "page.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--disable-background-networking", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,3000"]

    done = subprocess.run(
        [*command, f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr
