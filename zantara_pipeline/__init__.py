"""zantara_pipeline: raw behavioural events to personalization that can be trusted. See README.md and docs/architecture.md."""

__version__ = "0.1.0"
