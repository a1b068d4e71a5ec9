"""Dagster: which step follows which, when, and with what around it. No business rule lives here."""
