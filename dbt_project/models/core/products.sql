-- One row per product of the catalogue or of the events; the catalogue wins, the latest event fills what it lacks.
with seen as (
    {% for event in ['product_view', 'add_to_cart', 'purchase'] %}
    select
        product_id,
        category,
        brand,
        price,
        currency,
        occurred_at,
        event_id
    from {{ ref('stg_lake__' ~ event) }}
    union all
    {% endfor %}
    select
        product_id,
        category,
        null as brand,
        price,
        currency,
        occurred_at,
        event_id
    from {{ ref('stg_lake__refund') }}
    {% for event in ['rating', 'item_tag', 'recommendation_exposed', 'recommendation_clicked'] %}
    union all
    select
        product_id,
        null,
        null,
        null,
        null,
        occurred_at,
        event_id
    from {{ ref('stg_lake__' ~ event) }}
    {% endfor %}
),

from_events as (
    select
        product_id,
        arg_max(category, (occurred_at, event_id)) as category,
        arg_max(brand, (occurred_at, event_id)) as brand,
        arg_max(price, (occurred_at, event_id)) as price,
        arg_max(currency, (occurred_at, event_id)) as currency,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at
    from seen
    group by product_id
)

select
    catalogue.title,
    catalogue.provider,
    catalogue.available_from,
    from_events.first_seen_at,
    from_events.last_seen_at,
    coalesce(catalogue.product_id, from_events.product_id) as product_id,
    coalesce(catalogue.category, from_events.category) as category,
    coalesce(catalogue.brand, from_events.brand) as brand,
    coalesce(catalogue.price, from_events.price) as price,
    coalesce(catalogue.currency, from_events.currency) as currency,
    catalogue.product_id is not null as in_catalogue
from {{ source('lake', 'items') }} as catalogue
full outer join from_events on catalogue.product_id = from_events.product_id
