"""``report.html``, which needs nothing else, and ``report.md`` with its figures."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from flwr_collabedit.evaluation.report import render_markdown
from flwr_collabedit.files import check_writable, replacing
from simulations.comparison import Comparison, compare
from simulations.comparison_figures import Picture, pictures
from simulations.comparison_tables import NOTE, Table, tables
from simulations.comparison_words import orders, sentences
from simulations.finished_runs import home_of, read_runs

FIGURES = "report_figures"
TITLE = "Comparison of edits"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; }
.wide { overflow-x: auto; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .9rem; }
"""


def write_comparison(paths: Sequence[Path], output: Path | None = None) -> Path:
    """Compare all runs in some folders; return the path of ``report.html``.

    Parameters
    ----------
    paths : sequence of Path
        Run folders and sweep folders.
    output : Path, optional
        Where the report goes; beside the runs by default.

    Raises
    ------
    ConfigurationError
        If a folder has no finished run, the models differ or the folder cannot be
        written to.
    """
    runs = read_runs(paths)
    folder = output or home_of(runs, paths)
    check_writable(folder)
    comparison = compare(runs)
    drawn = list(pictures(comparison))
    for picture in drawn:
        with replacing(folder / FIGURES / f"{picture.name}.png") as draft:
            draft.write_bytes(picture.png)
    with replacing(folder / "report.md") as draft:
        draft.write_text(markdown(comparison, drawn), encoding="utf-8")
    page = folder / "report.html"
    with replacing(page) as draft:
        draft.write_text(web_page(comparison, drawn), encoding="utf-8")
    return page


def markdown(comparison: Comparison, drawn: Sequence[Picture]) -> str:
    """Return the report in Markdown; figures are files in ``report_figures/``."""
    parts = [f"# {TITLE}\n", *(f"{text}\n" for text in sentences(comparison))]
    found = orders(comparison)
    if found:
        parts += ["\n".join(f"- {text}" for text in found) + "\n"]
    parts += [render_markdown(*table) for table in tables(comparison)]
    parts.append(f"{NOTE}\n")
    parts += [
        f"## {p.title}\n\n![{p.title}]({FIGURES}/{p.name}.png)\n\n{p.caption}\n"
        for p in drawn
    ]
    return "\n".join(parts)


def web_page(comparison: Comparison, drawn: Sequence[Picture]) -> str:
    """Return the report as one HTML page with its figures inside, without scripts."""
    words = "".join(f"<p>{html.escape(text)}</p>\n" for text in sentences(comparison))
    order = "".join(f"<li>{html.escape(text)}</li>\n" for text in orders(comparison))
    body = "".join(
        [
            f"<h1>{TITLE}</h1>\n{words}",
            f"<ul>\n{order}</ul>\n" if order else "",
            *map(_html_table, tables(comparison)),
            f'<p class="note">{html.escape(NOTE)}</p>\n',
            *map(_html_figure, drawn),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    title, columns, rows = table
    head = "".join(f"<th>{html.escape(column.header)}</th>" for column in columns)
    lines = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(column.cell(row))}</td>" for column in columns)
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<h2>{html.escape(title)}</h2>\n<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n"
    )


def _html_figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    title = html.escape(picture.title)
    return (
        f'<h2>{title}</h2>\n<figure><img alt="{title}" '
        f'src="data:image/png;base64,{data}">\n'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>\n"
    )
