"""Consent as of a time; keyed hashes of direct identifiers. Later: pseudonyms in exports, erasure and its proof."""
