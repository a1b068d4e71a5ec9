{# The clock of the run as a timestamp. #}
{% macro as_of() -%}
    cast('{{ var("as_of") }}' as timestamp with time zone)
{%- endmacro %}

{# Is a time inside the window of so many days that ends at the clock? (open below, closed above) #}
{% macro within_days(column, days) -%}
    {{ column }} > {{ as_of() }} - interval {{ days }} day and {{ column }} <= {{ as_of() }}
{%- endmacro %}
