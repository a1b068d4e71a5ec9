{{ config(
    pre_hook="{{ note_consent_changes() }} {{ remove_touched('user_id', 'consent') }}",
    post_hook="{{ keep_consent_numbers() }}"
) }}

-- What each person allows, per purpose, over time. Two voices: the company's ledger and the events themselves.
-- Denied wins over granted as long as either voice says so; nobody who never said anything has a row (missing is denied).
-- It is what was known at the clock: of a past date that is built anew, without what people said later of that time.
with statements as (
    select
        consent.user_id,
        consent.purpose,
        consent.status,
        consent.origin,
        cast(consent.effective_from as timestamp with time zone) as effective_from
    from {{ source('state', 'consent') }} as consent
    where {{ was_known('consent') }} and {{ is_touched('consent.user_id', 'consent') }}
),

-- within one voice the latest statement holds; denied wins where one moment has both
voices as (
    select
        user_id,
        purpose,
        origin,
        effective_from,
        min(status) as status
    from statements
    group by user_id, purpose, origin, effective_from
),

moments as (
    select distinct
        user_id,
        purpose,
        effective_from
    from voices
),

heard as (
    select
        moments.user_id,
        moments.purpose,
        moments.effective_from,
        ledger.status as ledger_status,
        event.status as event_status
    from moments
    asof left join (
        select * from voices
        where origin = 'ledger'
    ) as ledger
        on
            moments.user_id = ledger.user_id
            and moments.purpose = ledger.purpose
            and moments.effective_from >= ledger.effective_from
    asof left join (
        select * from voices
        where origin = 'event'
    ) as event
        on
            moments.user_id = event.user_id
            and moments.purpose = event.purpose
            and moments.effective_from >= event.effective_from
),

decided as (
    select
        user_id,
        purpose,
        effective_from,
        case when 'denied' in (ledger_status, event_status) then 'denied' else 'granted' end as status
    from heard
),

changes as (
    select *
    from decided
    qualify status is distinct from lag(status) over (partition by user_id, purpose order by effective_from)
)

select
    user_id,
    purpose,
    status,
    effective_from,
    lead(effective_from) over (partition by user_id, purpose order by effective_from) as effective_to
from changes
