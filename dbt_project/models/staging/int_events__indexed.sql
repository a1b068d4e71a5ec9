{{ config(materialized='incremental', incremental_strategy='append', pre_hook='{{ delete_from_rebuild_date() }}') }}

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
)

select
    * exclude (copy_number),
    {% if is_incremental() %}
        copy_number > 1
        or event_id in (
            select earlier.event_id
            from {{ this }} as earlier
            where
                earlier.received_date < {{ rebuild_from() }}
                and earlier.received_date >= {{ rebuild_from() }} - {{ duplicate_window_days() }}
        ) as is_duplicate
    {% else %}
        copy_number > 1 as is_duplicate
    {% endif %}
from ranked
