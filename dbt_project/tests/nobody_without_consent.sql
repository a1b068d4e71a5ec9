{{ config(meta={'dagster': {'ref': {'name': 'users'}}}) }}

-- Nobody is in a segment of users who does not allow personalization now.
{% set segments = ['seg_recent_buyers', 'seg_cart_abandoners', 'seg_high_spenders'] %}

with members as (
    {% for segment in segments %}
    select
        '{{ segment }}' as segment,
        entity_id
    from {{ ref(segment) }}
    {% if not loop.last %} union all {% endif %}
    {% endfor %}
)

select members.*
from members
anti join {{ ref('users') }} as users on members.entity_id = users.user_id and users.personalization_allowed
