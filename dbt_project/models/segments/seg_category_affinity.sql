-- People whose views (1), carts (3) and purchases (5) of the last {{ var('affinity_days') }} days go mostly to one category.
with weighed as (
    select
        user_id,
        category,
        min(occurred_at) as first_at,
        max(occurred_at) as last_at,
        sum(case event when 'purchase' then 5 when 'add_to_cart' then 3 else 1 end) as weight
    from {{ allowed_events(['product_view', 'add_to_cart', 'purchase']) }}
    where category is not null and {{ within_days('occurred_at', var('affinity_days')) }}
    group by user_id, category
),

shares as (
    select
        *,
        sum(weight) over (partition by user_id) as total
    from weighed
)

select
    user_id as entity_id,
    first_at as entered_at,
    last_at as qualified_at,
    category
from shares
where weight >= {{ var('affinity_min_weight') }} and weight * 100 >= total * {{ var('affinity_min_share_pct') }}
qualify row_number() over (partition by user_id order by weight desc, category asc) = 1
