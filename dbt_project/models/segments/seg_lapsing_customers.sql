-- People with {{ var('lapsing_min_orders') }} orders or more within a year
-- who have not bought for {{ var('lapsing_after_days') }} days.
select
    user_id as entity_id,
    max(occurred_at) + interval {{ var('lapsing_after_days') }} day as entered_at,
    max(occurred_at) + interval {{ var('lapsing_after_days') }} day as qualified_at
from {{ allowed_events(['purchase']) }}
where {{ within_days('occurred_at', 365) }}
group by user_id
having count(distinct coalesce(order_id, event_id)) >= {{ var('lapsing_min_orders') }}
