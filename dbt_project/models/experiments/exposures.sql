-- One row per experiment and unit: the first variant it was shown, and where that was logged, also where that is unsaid. A unit
-- that saw two variants is contaminated.
select
    experiment_id,
    user_id as unit_id,
    arg_min(variant, (occurred_at, event_id)) as variant,
    min(occurred_at) as first_exposed_at,
    count(distinct variant) > 1 as contaminated,
    arg_min_null(platform, (occurred_at, event_id)) as platform,
    arg_min_null(app_version, (occurred_at, event_id)) as app_version,
    arg_min_null(country, (occurred_at, event_id)) as country
from {{ ref('stg_lake__experiment_exposed') }}
where user_id is not null and consent_analytics and occurred_at <= {{ as_of() }}
group by experiment_id, user_id
