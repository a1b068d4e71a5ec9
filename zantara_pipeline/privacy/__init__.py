"""Consent as of a time. Later: pseudonyms, retention, erasure and its proof."""
