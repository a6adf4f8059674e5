"""Editors: from requests and a model to deltas of its weights."""
