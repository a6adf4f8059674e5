import importlib
import sys

import pytest


def test_without_the_harness_the_import_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.registry", None)
    monkeypatch.delitem(
        sys.modules, "flwr_collabedit.evaluation.downstream", raising=False
    )

    with pytest.raises(ImportError, match=r"'flwr-collabedit\[downstream\]'"):
        importlib.import_module("flwr_collabedit.evaluation.downstream")
