-- People whose purchases minus refunds of the last {{ var('high_spender_days') }} days reach {{ var('high_spender_min') }}.
select
    user_id as entity_id,
    min(occurred_at) as entered_at,
    max(occurred_at) as qualified_at
from {{ allowed_events(['purchase', 'refund']) }}
where {{ within_days('occurred_at', var('high_spender_days')) }}
group by user_id
having sum(case event when 'refund' then -1 else 1 end * price * abs(coalesce(quantity, 1))) >= {{ var('high_spender_min') }}
