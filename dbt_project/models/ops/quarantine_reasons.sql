-- How many quarantined rows gave which reason; a row with two reasons counts in both.
select
    event,
    code,
    path,
    sum(rows) as rows
from {{ source('state', 'quarantine_reasons') }}
group by event, code, path
