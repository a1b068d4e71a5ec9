{#
    The clock of the run is one row of state.run_clock, written before every build. It is not a dbt variable, because a
    changed variable makes dbt parse the whole project again (3 of its 14 seconds), and the clock changes every day.
#}

{# The clock of the run: every window, TTL and consent is read as of this time (UTC). #}
{% macro as_of() -%}
    (select run_clock.as_of from state.run_clock as run_clock)
{%- endmacro %}

{# The latest clock of any run; later than as_of where a past date is built anew. "Now", for what must not look back. #}
{% macro latest_clock() -%}
    (select run_clock.latest_clock from state.run_clock as run_clock)
{%- endmacro %}

{# Did a statement of consent hold at the clock of the run, and was it known then? unknown_at is the latest clock that a run
   was built for without it: at that one and before, nobody had heard it. #}
{% macro was_known(alias) -%}
    cast({{ alias }}.effective_from as timestamp with time zone) <= {{ as_of() }}
    and coalesce(cast(nullif({{ alias }}.unknown_at, '') as timestamp with time zone) < {{ as_of() }}, true)
{%- endmacro %}

{# Staging is rebuilt for received dates from this one on: the earliest date that a new file touched. #}
{% macro rebuild_from() -%}
    (select run_clock.rebuild_from from state.run_clock as run_clock)
{%- endmacro %}

{# Is a received date staged by this run? From rebuild_from on, and single dates before it that retention changed. The first
   condition follows from the second: it lets the engine skip what it does not have to read, which a list of dates does not. #}
{% macro is_restaged(column) -%}
    (
        {{ column }} >= {{ first_restaged() }}
        and ({{ column }} >= {{ rebuild_from() }} or {{ column }} in (select restaged.received_date from state.restaged_dates as restaged))
    )
{%- endmacro %}

{# The earliest received date that this run stages. One subquery, and no least() of two: only with that the engine compares
   the smallest and largest values of its blocks first, and skips nearly all of them. #}
{% macro first_restaged() -%}
    (
        select min(dates.received_date) from (
            select run_clock.rebuild_from as received_date from state.run_clock as run_clock
            union all
            select restaged.received_date from state.restaged_dates as restaged
        ) as dates
    )
{%- endmacro %}

{# How far back copies of one event are sought, in days: ZANTARA_MAX_LATENESS_DAYS plus one. #}
{% macro duplicate_window_days() -%}
    (select run_clock.duplicate_window_days from state.run_clock as run_clock)
{%- endmacro %}

{# Is a time inside the window of so many days that ends at the clock? (open below, closed above) #}
{% macro within_days(column, days) -%}
    {{ column }} > {{ as_of() }} - interval {{ days }} day and {{ column }} <= {{ as_of() }}
{%- endmacro %}
