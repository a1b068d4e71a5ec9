-- One row per product of the catalogue or of the events; the catalogue wins, the latest event fills what it lacks.
with from_events as (
    select
        product_id,
        max(category).said as category,
        max(brand).said as brand,
        max(price).said as price,
        max(currency).said as currency,
        min(first_seen_at) as first_seen_at,
        max(last_seen_at) as last_seen_at,
        sum(events) as events
    from {{ ref('int_products__seen') }}
    group by product_id
)

select
    catalogue.title,
    catalogue.provider,
    catalogue.available_from,
    from_events.first_seen_at,
    from_events.last_seen_at,
    cast(coalesce(from_events.events, 0) as bigint) as events,
    coalesce(catalogue.product_id, from_events.product_id) as product_id,
    coalesce(catalogue.category, from_events.category) as category,
    coalesce(catalogue.brand, from_events.brand) as brand,
    coalesce(catalogue.price, from_events.price) as price,
    coalesce(catalogue.currency, from_events.currency) as currency,
    catalogue.product_id is not null as in_catalogue
from {{ source('lake', 'items') }} as catalogue
full outer join from_events on catalogue.product_id = from_events.product_id
