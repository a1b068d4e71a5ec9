-- Buyers of the last {{ var('rfm_days') }} days by how lately, how often and for how much they bought (refunds taken off).
with buyers as (
    select
        user_id,
        min(occurred_at) filter (where event = 'purchase') as first_at,
        max(occurred_at) filter (where event = 'purchase') as last_at,
        count(distinct coalesce(order_id, event_id)) filter (where event = 'purchase') as orders,
        coalesce(sum(case event when 'refund' then -1 else 1 end * price * abs(coalesce(quantity, 1))), 0) as money
    from {{ allowed_events(['purchase', 'refund']) }}
    where {{ within_days('occurred_at', var('rfm_days')) }}
    group by user_id
),

scored as (
    select
        *,
        case
            when {{ within_days('last_at', var('rfm_recency_days')[0]) }} then 3
            when {{ within_days('last_at', var('rfm_recency_days')[1]) }} then 2
            else 1
        end as recency_score,
        case
            when orders >= {{ var('rfm_orders')[0] }} then 3
            when orders >= {{ var('rfm_orders')[1] }} then 2
            else 1
        end as frequency_score,
        case
            when money >= {{ var('rfm_money')[0] }} then 3
            when money >= {{ var('rfm_money')[1] }} then 2
            else 1
        end as monetary_score
    from buyers
    where last_at is not null
)

select
    user_id as entity_id,
    first_at as entered_at,
    last_at as qualified_at,
    case
        when recency_score = 3 and frequency_score = 3 and monetary_score = 3 then 'champion'
        when recency_score = 3 and frequency_score = 3 then 'loyal'
        when recency_score = 3 and monetary_score = 3 then 'big spender'
        when recency_score = 3 then 'promising'
        when recency_score = 2 and frequency_score + monetary_score >= 5 then 'at risk'
        when recency_score = 2 then 'cooling'
        else 'lost'
    end as rfm_class,
    recency_score,
    frequency_score,
    monetary_score
from scored
