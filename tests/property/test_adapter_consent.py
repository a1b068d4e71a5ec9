"""Consent of other tools, whatever is stated: it is granted only where every category grants, and silent only in silence."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.adapters.contract import FormatRules
from zantara_pipeline.tracking.adapters.draft import UNREADABLE, Draft, said
from zantara_pipeline.tracking.plan import load_plan

PLAN = load_plan((PACKAGED,))
CATEGORIES = ("analytics", "personalization", "A", "B", "Necessary", "unknown")
answers = st.sampled_from([True, False, None, "yes", 1, 0, "", [True]])
mappings = st.dictionaries(
    st.sampled_from(("A", "B", "Necessary")),
    st.lists(st.sampled_from(("analytics", "personalization")), unique=True, max_size=2).map(tuple),
)


@given(mappings, st.dictionaries(st.sampled_from(CATEGORIES), answers), st.booleans())
def test_no_answer_but_a_plain_one_decides_and_no_word_counts_as_silence(
    mapping: dict[str, tuple[str, ...]], stated: dict[str, Any], garbled: bool
) -> None:
    found = Draft(FormatRules(consent=mapping), PLAN).consent(stated, "", garbled=garbled)
    stray = any(
        answer is not None and name not in mapping and name not in PLAN.purposes for name, answer in stated.items()
    )
    for purpose in PLAN.purposes:
        named = {name for name, meant in mapping.items() if purpose in meant}
        own = {purpose} if purpose in stated or not named else set()
        spoken = [stated.get(name) for name in named | own]
        if False in [answer for answer in spoken if isinstance(answer, bool)]:
            assert found[purpose] is False
        elif all(answer is True for answer in spoken) and not garbled:
            assert found[purpose] is True
        elif garbled or stray or any(answer is not None for answer in spoken):
            assert found[purpose] == UNREADABLE
        else:
            assert purpose not in found


@given(st.lists(answers), st.randoms(use_true_random=False))
def test_the_order_of_answers_about_one_category_grants_and_denies_nothing(spoken: list[Any], random: Any) -> None:
    shuffled = random.sample(spoken, len(spoken))
    one, other = said(spoken), said(shuffled)
    assert (one is True, one is False, one is None) == (other is True, other is False, other is None)
    assert (one is True) == (
        True in [a for a in spoken if isinstance(a, bool)] and all(a is True or a is None for a in spoken)
    )
