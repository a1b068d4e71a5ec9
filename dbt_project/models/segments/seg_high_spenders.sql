-- People whose purchases minus refunds of the last {{ var('high_spender_days') }} days reach {{ var('high_spender_min') }}.
with money as (
    select
        event_id,
        price * coalesce(quantity, 1) as amount
    from {{ ref('stg_lake__purchase') }}
    union all
    select
        event_id,
        -price * abs(coalesce(quantity, 1)) as amount
    from {{ ref('stg_lake__refund') }}
),

spent as (
    select
        interactions.user_id,
        interactions.occurred_at,
        money.amount
    from {{ ref('interactions') }} as interactions
    inner join money on interactions.event_id = money.event_id
    where
        interactions.event in ('purchase', 'refund')
        and {{ within_days('interactions.occurred_at', var('high_spender_days')) }}
)

select
    user_id as entity_id,
    min(occurred_at) as entered_at,
    max(occurred_at) + interval {{ var('high_spender_days') }} day as expires_at
from spent
group by user_id
having sum(amount) >= {{ var('high_spender_min') }}
