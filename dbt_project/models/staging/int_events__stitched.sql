-- Every event with the person it belongs to. Who was logged in keeps what they did. What was done without a login belongs to
--   1. the person of its session, where exactly one logged in during it; where several did (a shared session), to nobody;
--   2. in a session without a login, to the person of its anonymous id at that time (core.identities); its device is asked
--      only where it has no anonymous id, because another browser on a known device may be a guest's.
-- Nothing is given to a person who had denied analytics at that time.
with events as (
    select
        *,
        {{ known('user_id') }} as logged_in,
        case
            when {{ is_known('anonymous_id') }} then 'anonymous'
            when {{ is_known('device_id') }} then 'device'
        end as id_type,
        coalesce({{ known('anonymous_id') }}, {{ known('device_id') }}) as id
    from {{ ref('stg_lake__events') }}
),

placed as (
    select
        events.event_id,
        events.event,
        events.occurred_at,
        events.received_date,
        events.user_id,
        events.anonymous_id,
        events.device_id,
        events.organisation_id,
        events.logged_in,
        sessions.session_id,
        case
            when events.logged_in is not null then null
            when sessions.users = 1 then sessions.user_id
            when sessions.users = 0 or sessions.users is null then identities.user_id
        end as candidate,
        case
            when sessions.users = 1 then 'session'
            else identities.id_type
        end as evidence
    from events
    asof left join {{ ref('sessions') }} as sessions
        on events.stream = sessions.stream and events.occurred_at >= sessions.started_at
    asof left join {{ ref('identities') }} as identities
        on
            events.id_type = identities.id_type
            and events.id = identities.id
            and events.occurred_at >= identities.valid_from
)

select
    placed.event_id,
    placed.event,
    placed.occurred_at,
    placed.received_date,
    placed.user_id,
    placed.anonymous_id,
    placed.device_id,
    placed.organisation_id,
    placed.session_id,
    case
        when placed.logged_in is not null then placed.logged_in
        when coalesce(consent.status, 'unsaid') != 'denied' then placed.candidate
    end as person_id,
    case
        when placed.logged_in is not null then 'login'
        when placed.candidate is not null and coalesce(consent.status, 'unsaid') != 'denied' then placed.evidence
    end as stitched_by
from placed
asof left join (
    select * from {{ ref('consent_history') }}
    where purpose = 'analytics'
) as consent
    on placed.candidate = consent.user_id and placed.occurred_at >= consent.effective_from
