"""Edits as files that other programs use: deltas, models, LoRA adapters, cards."""
