{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='fail',
    pre_hook="{{ remove_interactions() }}",
    post_hook="{{ mark_seen() }}"
) }}

-- depends_on: {{ ref('stg_lake__events') }}
-- What people did with products, where they allowed personalization when it happened and still do.
with signals as (
    {% for event in ['product_view', 'add_to_cart', 'purchase', 'refund', 'item_tag', 'recommendation_clicked'] %}
    select
        event_id,
        '{{ event }}' as event,
        occurred_at,
        user_id,
        product_id,
        consent_personalization,
        cast(null as double) as rating,
        cast(null as double) as rating_scaled
    from {{ ref('stg_lake__' ~ event) }}
    where {{ is_touched('user_id', 'user') }} or {{ is_restaged('received_date') }}
    union all
    {% endfor %}
    select
        event_id,
        'rating' as event,
        occurred_at,
        user_id,
        product_id,
        consent_personalization,
        rating,
        greatest(0, least(1, (rating - coalesce(scale_min, 1)) / nullif(coalesce(scale_max, 5) - coalesce(scale_min, 1), 0)))
            as rating_scaled
    from {{ ref('stg_lake__rating') }}
    where {{ is_touched('user_id', 'user') }} or {{ is_restaged('received_date') }}
)

select
    signals.event_id,
    signals.user_id,
    signals.product_id,
    signals.event,
    signals.occurred_at,
    signals.rating,
    signals.rating_scaled
from signals
inner join {{ ref('users') }} as users on signals.user_id = users.user_id
where
    signals.consent_personalization
    and users.personalization_allowed
    and signals.occurred_at <= {{ as_of() }}
