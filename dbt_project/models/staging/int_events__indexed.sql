{{ config(post_hook='{{ note_touched() }}') }}

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
    where {{ is_restaged('received_date') }}
    {% if not loop.last %} union all {% endif %}
    {% endfor %}
),

ranked as (
    select
        *,
        row_number() over (partition by event_id order by received_at, source, line_no) as copy_number
    from landed
),

{# Before the rebuilt dates, copies are sought as far back as a late event can lie; of these events only, for grouping all of
   a month costs ten times as much. -#}
earlier as (
    {% if is_incremental() %}
    select
        event_id,
        min(received_date) as first_date
    from {{ this }}
    where
        received_date >= {{ first_restaged() }} - {{ duplicate_window_days() }}
        and event_id in (select landed.event_id from landed)
    group by event_id
    {% else %}
    select
        cast(null as varchar) as event_id,
        cast(null as date) as first_date
    where false
    {% endif %}
)

select
    ranked.* exclude (copy_number),
    {{ stream() }} as stream,
    ranked.copy_number > 1 or coalesce(earlier.first_date < ranked.received_date, false) as is_duplicate
from ranked
left join earlier on ranked.event_id = earlier.event_id
