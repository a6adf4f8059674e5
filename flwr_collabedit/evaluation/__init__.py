"""Scores of an edited model, prompt by prompt and summed, and tables of them."""
