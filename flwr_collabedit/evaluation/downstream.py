"""Downstream tasks, by EleutherAI's lm-evaluation-harness, on the model in memory.

Gao et al. "The Language Model Evaluation Harness", https://doi.org/10.5281/zenodo.12608602.

What an edit does to abilities that it was not to touch. The tasks are YAML files in a
folder of the caller's, as the harness documents them, with their questions beside them:
nothing is fetched.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flwr_collabedit.errors import ConfigurationError, nearest
from flwr_collabedit.models.language_model import LanguageModel

try:
    from lm_eval.api.registry import metric_registry
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
except ImportError as error:
    raise ImportError(
        "Downstream tasks need lm-eval with its Hugging Face models: install it by pip "
        "install 'flwr-collabedit[downstream]'."
    ) from error

# Two small tasks for the embedded model: "world_choice" and "world_text".
EXAMPLE_TASKS = Path(__file__).parents[1] / "assets" / "downstream"

_FEWSHOT_SEED = 1234  # the harness's own: which examples precede a question


def evaluate_downstream(
    lm: LanguageModel, tasks: Sequence[str], folder: Path, *, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """Return what the harness measures of the model: task -> metric -> value.

    Parameters
    ----------
    lm : LanguageModel
        Read as it is; apply deltas around the call with
        :func:`~flwr_collabedit.models.weights.applied_deltas`. Neither its weights nor
        its tokenizer change.
    tasks : sequence of str
        Names of tasks that YAML files in ``folder`` or below define. Tasks that come
        with the harness are not known here, since their data would be downloaded.
    folder : Path
        Each task has ``dataset_path: json`` and ``dataset_kwargs: data_files:`` with
        JSON or JSONL files, relative to its YAML file. ``!function`` in a YAML file
        runs code from the folder: use folders that you trust.
    batch_size : int
        Texts per forward pass, >= 1.

    Returns
    -------
    dict of str to dict of str to float
        Metrics under the harness's names, such as ``acc``; where a task filters its
        answers, with the filter: ``exact_match,strict-match``. Standard errors are
        left out.

    Raises
    ------
    ConfigurationError
        If a task is unknown, or its data or a metric is not on this machine, or
        ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigurationError(f"Expected batch_size >= 1; found {batch_size}.")
    with TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        loaded = _load(tasks, folder, cache)
        # The harness gives a tokenizer without padding a token for it: not to ours.
        model = HFLM(
            pretrained=lm.model,
            tokenizer=deepcopy(lm.tokenizer),
            batch_size=batch_size,
        )
        # Its simple_evaluate would seed every random generator and ask the hub for the
        # model's revision.
        found = evaluate(model, {"tasks": loaded}, bootstrap_iters=0, log_samples=False)
    return {name: _metrics(found["results"][name]) for name in loaded}


def _load(tasks: Sequence[str], folder: Path, cache: str) -> dict[str, Any]:
    """Return the harness's tasks by name, with their data read anew."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    known = manager.all_subtasks
    wanted = []
    for name in dict.fromkeys(tasks):
        if name not in known:
            raise ConfigurationError(
                f"Expected a task of a YAML file in {folder}; found {name!r}. "
                + (nearest(name, known) if known else "The folder has none.")
            )
        entry = manager.task_index[name]
        where = f"Task {name!r} ({entry.yaml_path})"
        _check_metrics(entry.cfg, where)
        files = _data_files(entry.cfg, entry.yaml_path.parent, where)
        data = {"data_files": files, "cache_dir": cache}
        wanted.append({"task": name, "dataset_kwargs": data})
    if not wanted:
        raise ConfigurationError("Expected at least one task; found none.")
    # Only members of a group may change what their files say.
    loaded = manager.load([{"group": "downstream", "task": wanted}])["tasks"]
    for task in loaded.values():
        task.set_fewshot_seed(_FEWSHOT_SEED)
    return dict(loaded)


def _data_files(
    task: Mapping[str, Any], folder: Path, where: str
) -> dict[str, list[str]]:
    """Return the task's data files by split, as absolute paths."""
    splits = (task.get("dataset_kwargs") or {}).get("data_files")
    if task.get("dataset_path") != "json" or not isinstance(splits, Mapping):
        raise ConfigurationError(
            f"{where}: expected 'dataset_path: json' with 'data_files' by split under "
            f"'dataset_kwargs'; found dataset_path {task.get('dataset_path')!r} with "
            f"data_files {splits!r}. Put the questions into a JSON file beside the "
            "YAML file."
        )
    found = {}
    for split, names in splits.items():
        paths = [
            folder / name for name in ([names] if isinstance(names, str) else names)
        ]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise ConfigurationError(
                f"{where}: expected data files on this machine; found no {missing[0]}. "
                "Write their names relative to the YAML file."
            )
        found[split] = [str(path.resolve()) for path in paths]
    return found


def _check_metrics(task: Mapping[str, Any], where: str) -> None:
    """Raise if a metric is one that the harness would look for on the hub."""
    if task.get("process_results") is not None:
        return  # which computes them itself
    for metric in task.get("metric_list") or ():
        name = metric["metric"]
        if metric.get("hf_evaluate") or name not in metric_registry:
            raise ConfigurationError(
                f"{where}: expected metrics of the harness itself; found {name!r}, "
                f"which would be downloaded. {nearest(name, metric_registry)}"
            )


def _metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that the harness lists as ``metric,filter``."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in results.items()
        if "," in key and isinstance(value, int | float)
    }
