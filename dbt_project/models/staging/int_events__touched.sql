{{ config(
    materialized='table',
    schema='state',
    pre_hook="{{ begin_touched_events() }}",
    post_hook="{{ mark_seen() }}"
) }}
-- depends_on: {{ ref('consent_history') }}

-- The events of the people, anonymous ids and devices that core makes anew in this build (macros/touched.sql): found once,
-- for all models that need them.
select
    event_id,
    occurred_at,
    user_id,
    anonymous_id,
    device_id,
    organisation_id,
    platform
from {{ ref('stg_lake__events') }}
where
    {{ is_to_be_taken('user_id', 'user') }}
    or {{ is_to_be_taken('anonymous_id', 'anonymous') }}
    or {{ is_to_be_taken('device_id', 'device') }}
