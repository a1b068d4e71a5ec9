"""The demo shop: seeded landing files with planted faults and effects, and the truth about them.

Belongs here: making up a shop (people, catalogue, sessions, consent, experiments, dirt) and counting what was planted.
Does not belong here: reading or judging events for the product; nothing of the pipeline is imported, so that the truth
stays an independent oracle. Start at `shop.simulate`; `truth.json` is documented in `truth`.
"""

from zantara_pipeline.simulate.shop import simulate
from zantara_pipeline.simulate.truth import Truth

__all__ = ["Truth", "simulate"]
