"""Candidate generators: each fits on a dataset and scores items for users, behind one protocol.

Belongs here: one module per generator. Does not belong here: choosing between them, ranking, rules, metrics.
"""
