"""The mathematics of merging edits: torch only, no model, no file, no message."""
