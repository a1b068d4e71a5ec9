{{ config(meta={'dagster': {'ref': {'name': 'users'}}}) }}

-- Nobody is in a segment who does not allow its purpose at the clock of the run, found without the macros that segments read
-- through: not as a person, not as somebody who was logged in on a device or during a session, not as all of an organisation.
{% set of_users = [
    'seg_cart_abandoners',
    'seg_category_affinity',
    'seg_high_spenders',
    'seg_lapsing_customers',
    'seg_multi_device_users',
    'seg_new_users',
    'seg_price_sensitive_buyers',
    'seg_recent_buyers',
    'seg_rfm_classes'
] %}
{% set of_devices = ['seg_shared_devices'] %}
{% set of_sessions = ['seg_cart_sessions'] %}
{% set of_organisations = ['seg_active_organisations'] %}

with logins as (
    select
        events.stream,
        events.device_id,
        events.occurred_at,
        coalesce(users.analytics_allowed, false) as analytics_allowed,
        coalesce(users.personalization_allowed, false) as personalization_allowed
    from {{ ref('stg_lake__events') }} as events
    left join {{ ref('users') }} as users on events.user_id = users.user_id
    where {{ is_known('events.user_id') }} and events.occurred_at <= {{ as_of() }} and events.received_at <= {{ as_of() }}
)

{% for segment in of_users %}
select
    '{{ segment }}' as segment,
    members.entity_id
from {{ ref(segment) }} as members
anti join {{ ref('users') }} as users on members.entity_id = users.user_id and users.{{ purpose_of(segment) }}_allowed
union all
{% endfor %}
{% for segment in of_devices %}
select
    '{{ segment }}' as segment,
    members.entity_id
from {{ ref(segment) }} as members
semi join logins on members.entity_id = logins.device_id and not logins.{{ purpose_of(segment) }}_allowed
union all
{% endfor %}
{% for segment in of_sessions %}
select
    '{{ segment }}' as segment,
    members.entity_id
from {{ ref(segment) }} as members
inner join {{ ref('sessions') }} as sessions on members.entity_id = sessions.session_id
semi join logins
    on
        sessions.stream = logins.stream
        and not logins.{{ purpose_of(segment) }}_allowed
        and logins.occurred_at between sessions.started_at and sessions.ended_at
union all
{% endfor %}
{% for segment in of_organisations %}
select
    '{{ segment }}' as segment,
    members.entity_id
from {{ ref(segment) }} as members
anti join (
    select organisation_members.organisation_id
    from {{ ref('organisation_members') }} as organisation_members
    inner join {{ ref('users') }} as users
        on organisation_members.user_id = users.user_id and users.{{ purpose_of(segment) }}_allowed
) as allowed on members.entity_id = allowed.organisation_id
{% if not loop.last %} union all {% endif %}
{% endfor %}
