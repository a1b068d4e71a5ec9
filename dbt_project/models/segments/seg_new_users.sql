-- People of whom little is known yet: the time since their first event is shorter than the segment's ttl_days. The stage says
-- how far their profile has come, so that the next question fits.
select
    user_id as entity_id,
    min(occurred_at) as entered_at,
    min(occurred_at) as qualified_at,
    case
        when bool_or(event = 'purchase') then 'bought'
        when bool_or(event in ('add_to_cart', 'rating', 'item_tag')) then 'interested'
        else 'looked'
    end as profile_stage
from {{ allowed_activity() }}
group by user_id
