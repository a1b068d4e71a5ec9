{{ config(meta={'dagster': {'ref': {'name': 'stg_lake__events'}}}) }}

-- An event id stands once in what was staged by this run, and every row has one.
select event_id
from {{ ref('stg_lake__events') }}
where {{ is_restaged('received_date') }}
group by event_id
having count(*) > 1 or event_id is null
