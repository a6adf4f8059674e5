"""Evaluations add up exactly; a bad one is left out, too few end the run."""

import pytest
from federation import strategy
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import CONFIG, METRICS
from simulations.in_process import InProcessGrid

CASES = [(1, 1.0), (3, 2.0), (0, 0.0)]  # cases and how many of them succeeded


def app(tamper=lambda index, content: None) -> ClientApp:
    client_app = ClientApp()

    @client_app.evaluate()
    def evaluate(message, context):
        index = int(context.node_config["partition-id"])
        instruction = Instruction.from_config(message.content.config_records[CONFIG])
        count, total = CASES[index]
        metrics = {"num-examples": count, "loss": 0.0}
        for name in ("efficacy-success", "paraphrase-success", "neighborhood-success"):
            metrics |= {f"{name}/sum": total, f"{name}/count": count}
        content = RecordDict(
            {
                METRICS: MetricRecord(metrics),
                CONFIG: ConfigRecord(instruction.reply_config()),
            }
        )
        tamper(index, content)
        return Message(content, reply_to=message)

    return client_app


def scored(client_app: ClientApp, **options):
    server = strategy(3, evaluate=True, **options)
    server.start(InProcessGrid(client_app, 3), num_rounds=0)
    return server.reports[0]


def test_scores_are_means_over_cases_and_not_over_clients():
    report = scored(app())

    assert report.evaluation["ES"] == pytest.approx(75.0)  # 3 of 4; clients' mean 83.3
    assert report.evaluation["Score"] == pytest.approx(75.0)


def test_the_unedited_model_is_scored_only_where_wanted():
    server = strategy(3, evaluate=True, evaluate_before=False)
    server.start(InProcessGrid(app(), 3), num_rounds=0)

    assert server.reports == []


def wrong_model(content):
    content.config_records[CONFIG]["fingerprint"] = "other"


def half_a_metric(content):
    del content.metric_records[METRICS]["efficacy-success/count"]


def no_metrics(content):
    del content[METRICS]


def failure(content):
    raise MemoryError("out of memory")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (wrong_model, "Expected fingerprint"),
        (half_a_metric, "efficacy-success"),
        (no_metrics, "Expected the records"),
        (failure, "out of memory"),
    ],
)
def test_a_bad_evaluation_is_left_out_with_its_reason(spoil, reason):
    def tamper(index, content):
        if index == 0:
            spoil(content)

    report = scored(app(tamper), min_replies=2)

    assert report.evaluation["ES"] == pytest.approx(100 * 2 / 3)
    (why,) = report.dropped.values()
    assert reason in why
    with pytest.raises(AggregationError, match="at least 3 valid replies, found 2"):
        scored(app(tamper))
