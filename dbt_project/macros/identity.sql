{#
    What counts as an id, and whose activity an event is. Clients send words where they have no id ("guest", "undefined"):
    taken as ids, they would make one person of all guests.
#}

{# Is it an id, and none of the words that clients send instead of one (var placeholder_ids)? #}
{% macro is_known(column) -%}
    ({{ column }} is not null and lower(trim({{ column }})) not in ('{{ var("placeholder_ids") | join("', '") }}'))
{%- endmacro %}

{# The id, or null where it is a placeholder. #}
{% macro known(column) -%}
    case when {{ is_known(column) }} then {{ column }} end
{%- endmacro %}

{# Whose activity an event is, the closest to one screen that it names; the kind stands before the id, for one text may be two ids. #}
{% macro stream() -%}
    coalesce(
        'device ' || {{ known('device_id') }},
        'anonymous ' || {{ known('anonymous_id') }},
        'user ' || {{ known('user_id') }},
        'session ' || {{ known('session_id') }}
    )
{%- endmacro %}

{# The pause that ends a session, and the longest session, as intervals. #}
{% macro session_idle() -%}
    interval {{ var('session_idle_minutes') }} minute
{%- endmacro %}
