-- What the events of one received date say about a product: each property in its latest wording.
with seen as (
    {% for event in ['product_view', 'add_to_cart', 'purchase'] %}
    select
        event,
        received_date,
        product_id,
        category,
        brand,
        price,
        currency,
        occurred_at,
        event_id
    from {{ ref('stg_lake__' ~ event) }}
    where {{ is_restaged('received_date') }}
    union all
    {% endfor %}
    select
        event,
        received_date,
        product_id,
        category,
        null as brand,
        price,
        currency,
        occurred_at,
        event_id
    from {{ ref('stg_lake__refund') }}
    where {{ is_restaged('received_date') }}
    {% for event in ['rating', 'item_tag', 'recommendation_exposed', 'recommendation_clicked'] %}
    union all
    select
        event,
        received_date,
        product_id,
        null,
        null,
        null,
        null,
        occurred_at,
        event_id
    from {{ ref('stg_lake__' ~ event) }}
    where {{ is_restaged('received_date') }}
    {% endfor %}
)

select
    event,
    received_date,
    product_id,
    {% for property in ['category', 'brand', 'price', 'currency'] %}
    max(struct_pack(at := occurred_at, id := event_id, said := {{ property }})) filter (where {{ property }} is not null)
        as {{ property }},
    {% endfor %}
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    count(*) as events
from seen
group by event, received_date, product_id
