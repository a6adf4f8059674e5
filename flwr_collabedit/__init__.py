"""Collaborative knowledge editing for Flower: merged equals pooled.

Importing the package does nothing but define; take classes from where they live:
``flwr_collabedit.strategies``, ``flwr_collabedit.client``, ``flwr_collabedit.editors``.
"""
