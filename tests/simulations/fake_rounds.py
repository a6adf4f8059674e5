"""Rounds as ``summary.json`` has them, with made-up figures."""


def fake_round(number, *efficacies, refused="", **changes):
    """Return a round after which the rounds' edits have these EAs."""
    by_round = {
        str(s): {"EA": value, "ES": 100.0, "edits": 2}
        for s, value in enumerate(efficacies, start=1)
        if value is not None
    }
    known = [scores["EA"] for scores in by_round.values()]
    return {
        "server_round": number,
        "num_edits": 2,
        "num_clients": 2,
        "residual_norm_before": 3.0,
        "residual_norm_after": None,
        "upload_bytes": 2048,
        "seconds": {"targets": 1.0},
        "evaluation": {"EA": sum(known) / len(known)} if known else {},
        "efficacy_by_round": by_round,
        "weight_norms": {},
        "base_norms": {},
        "health": {},
        "declared": {},
        "warnings": [],
        "refused": refused,
        "mediator": {},
        **changes,
    }


def old_round(number):
    """Return a round of a run before reports had figures of earlier rounds."""
    names = ("efficacy_by_round", "base_norms", "health", "declared")
    left = (*names, "warnings", "refused")
    found = fake_round(number, evaluation={"EA": 80.0})
    found["weight_norms"] = {"l1/h.0.w": 10.0 + number}
    return {name: value for name, value in found.items() if name not in left}
