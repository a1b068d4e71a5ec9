"""One module per domain; each asset is a few lines that call one domain function and return metadata."""
