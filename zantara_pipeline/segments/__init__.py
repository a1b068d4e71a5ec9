"""The life of a segment after its SELECT: catalogue, membership history. The SELECTs themselves are dbt models."""
