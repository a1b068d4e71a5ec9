select * exclude (is_duplicate)
from {{ ref('int_events__indexed') }}
where not is_duplicate
