-- People who bought something within the last {{ var('recent_buyer_days') }} days.
select
    user_id as entity_id,
    min(occurred_at) as entered_at,
    max(occurred_at) as qualified_at
from {{ allowed_events(['purchase']) }}
where {{ within_days('occurred_at', var('recent_buyer_days')) }}
group by user_id
