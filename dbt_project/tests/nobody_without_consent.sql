{{ config(meta={'dagster': {'ref': {'name': 'users'}}}) }}

-- Nobody is in a segment who does not allow personalization now.
select members.entity_id
from (
    select entity_id from {{ ref('seg_recent_buyers') }}
    union all
    select entity_id from {{ ref('seg_cart_abandoners') }}
    union all
    select entity_id from {{ ref('seg_high_spenders') }}
) as members
anti join {{ ref('users') }} as users on members.entity_id = users.user_id and users.personalization_allowed
