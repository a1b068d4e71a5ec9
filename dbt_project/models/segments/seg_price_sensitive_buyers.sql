-- People half of whose purchases cost {{ var('price_sensitive_at_pct') }} % at most of the mean price
-- that they looked at in that category.
with looks as (
    select
        user_id,
        category,
        currency,
        sum(price) as total,
        count(*) as views
    from {{ allowed_events(['product_view']) }}
    where price is not null and {{ within_days('occurred_at', var('price_sensitive_days')) }}
    group by user_id, category, currency
),

compared as (
    select
        purchases.user_id,
        purchases.occurred_at,
        purchases.price * looks.views * 100 <= looks.total * {{ var('price_sensitive_at_pct') }} as is_cheap
    from {{ allowed_events(['purchase']) }} as purchases
    inner join looks
        on
            purchases.user_id = looks.user_id
            and purchases.category = looks.category
            and purchases.currency = looks.currency
    where purchases.price is not null and {{ within_days('purchases.occurred_at', var('price_sensitive_days')) }}
)

select
    user_id as entity_id,
    min(occurred_at) filter (where is_cheap) as entered_at,
    max(occurred_at) filter (where is_cheap) as qualified_at
from compared
group by user_id
having count(*) >= {{ var('price_sensitive_min_purchases') }} and count(*) filter (where is_cheap) * 2 >= count(*)
