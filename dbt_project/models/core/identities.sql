{{ config(pre_hook="{{ remove_touched_ids() }}") }}
-- depends_on: {{ ref('int_events__touched') }}

-- Whose an anonymous id or a device was, and when: the last login holds until the next person logs in. An id of one person
-- is theirs from its first event on; before the first login an id of several people is nobody's. Nobody's at any time is
-- an id of more people than the variable shared_id_max_people (a kiosk), and one that nobody logged in under (a guest).
with sightings as (
    {% for id_type in ['anonymous', 'device'] %}
    select
        '{{ id_type }}' as id_type,
        {{ id_type }}_id as id,
        {{ known('user_id') }} as user_id,
        occurred_at,
        event_id
    from {{ ref('int_events__touched') if takes_changes_only() else ref('stg_lake__events') }}
    where {{ is_known(id_type ~ '_id') }} and {{ is_touched(id_type ~ '_id', id_type) }}
    {% if not loop.last %} union all {% endif %}
    {% endfor %}
),

ids as (
    select
        id_type,
        id,
        count(distinct user_id) as users,
        min(occurred_at) as first_seen_at
    from sightings
    group by id_type, id
),

-- where two people logged in at one instant, the later in order holds
logins as (
    select
        id_type,
        id,
        occurred_at,
        arg_max(user_id, event_id) as user_id
    from sightings
    where user_id is not null
    group by id_type, id, occurred_at
),

holders as (
    select *
    from logins
    qualify user_id is distinct from lag(user_id) over (partition by id_type, id order by occurred_at)
)

select
    holders.id_type,
    holders.id,
    holders.user_id,
    ids.users,
    case when ids.users = 1 then ids.first_seen_at else holders.occurred_at end as valid_from,
    lead(holders.occurred_at) over (partition by holders.id_type, holders.id order by holders.occurred_at) as valid_to
from holders
inner join ids on holders.id_type = ids.id_type and holders.id = ids.id
where ids.users <= {{ var('shared_id_max_people') }}
