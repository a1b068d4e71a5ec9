{{ config(meta={'dagster': {'ref': {'name': 'ingested_files'}}}) }}

-- Every landed row has exactly one outcome.
select *
from {{ ref('ingested_files') }}
where rows_in != unparsable + suppressed + quarantined + accepted or duplicates > accepted
