{#
    What a model promises of its columns, as one check: never null, no value twice, only these values. dbt's own not_null,
    unique and accepted_values are a check a column, and a check costs 40 ms of dbt and Dagster whatever it asks
    (docs/decisions/0030). Each row is a promise that does not hold; orchestration/broken_columns.py says it aloud.

    not_null, unique : columns. A null is no value twice: name a key in both.
    accepted_values : column -> texts; null is let through here, too.
#}
{% test sound_columns(model, not_null=[], unique=[], accepted_values={}) %}
with counted as (
    select
        {% for column in not_null %}
        count(*) filter (where {{ column }} is null) as null_{{ column }},
        {% endfor %}
        {% for column, values in accepted_values.items() %}
        count(*) filter (where {{ column }} not in ('{{ values | join("', '") }}')) as other_{{ column }},
        {% endfor %}
        {% for column in unique %}
        (
            select count(*) from (
                select {{ column }} from {{ model }} where {{ column }} is not null group by {{ column }} having count(*) > 1
            ) as repeated
        ) as repeated_{{ column }},
        {% endfor %}
        count(*) as all_rows
    from {{ model }}
),

promises as (
    {% for column in not_null %}
    select '{{ column }}' as column_name, 'is null' as fault, null_{{ column }} as times from counted
    union all
    {% endfor %}
    {% for column in accepted_values %}
    select '{{ column }}' as column_name, 'is none of its values' as fault, other_{{ column }} as times from counted
    union all
    {% endfor %}
    {% for column in unique %}
    select '{{ column }}' as column_name, 'stands more than once' as fault, repeated_{{ column }} as times from counted
    union all
    {% endfor %}
    select 'none' as column_name, 'none' as fault, 0 as times from counted
)

select * from promises where times > 0
{% endtest %}
