-- One row per accepted event of any kind. Copies of one event are found here, once, for all: the earliest received wins.
with landed as (
    {% for event in lake_events() %}
    select
        event_id,
        event,
        occurred_at,
        received_at,
        received_date,
        user_id,
        anonymous_id,
        session_id,
        device_id,
        organisation_id,
        platform,
        country,
        consent_analytics,
        consent_personalization,
        is_late,
        source,
        line_no
    from {{ source('lake', event) }}
    where received_date >= {{ rebuild_from() }}
    {% if not loop.last %} union all {% endif %}
    {% endfor %}
),

ranked as (
    select
        *,
        row_number() over (partition by event_id order by received_at, source, line_no) as copy_number
    from landed
),

{# Before the rebuilt dates, copies are sought as far back as a late event can lie. -#}
earlier as (
    {% if is_incremental() %}
    select distinct event_id
    from {{ this }}
    where
        received_date < {{ rebuild_from() }}
        and received_date >= {{ rebuild_from() }} - {{ duplicate_window_days() }}
    {% else %}
    select cast(null as varchar) as event_id
    where false
    {% endif %}
)

select
    ranked.* exclude (copy_number),
    ranked.copy_number > 1 or earlier.event_id is not null as is_duplicate
from ranked
left join earlier on ranked.event_id = earlier.event_id
